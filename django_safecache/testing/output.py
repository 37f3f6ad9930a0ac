"""Reply bytes of one connection on their way out."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from math import inf

# How much is copied together for one send; more than a socket buffer takes.
SEND_BYTES = 256 * 1024


class Output:
    """Replies in order: waiting for each other, then for their time, then sent.

    Times are those of `time.monotonic`. Not thread-safe.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes not yet sent."""
        self._waiting: list[bytes] = []
        self._queue: deque[tuple[float, Iterator[bytes]]] = deque()
        self._ready = bytearray()

    @property
    def due(self) -> float | None:
        """When there will be something to send; None for nothing at all."""
        if self._ready:
            return -inf
        return self._queue[0][0] if self._queue else None

    def add(self, chunks: Sequence[bytes]) -> None:
        """Add a reply that waits for `flush`."""
        self._waiting += chunks
        self.size += sum(map(len, chunks))

    def add_at(self, due: float, chunks: Sequence[bytes]) -> None:
        """Add a reply to be sent at `due`, or after the replies before it."""
        self.flush()
        self._queue.append((due, iter(chunks)))
        self.size += sum(map(len, chunks))

    def cancel(self) -> None:
        """Throw away the replies that wait for `flush`."""
        self.size -= sum(map(len, self._waiting))
        self._waiting = []

    def flush(self) -> None:
        """Let the waiting replies go."""
        if self._waiting:
            self._queue.append((-inf, iter(self._waiting)))
            self._waiting = []

    def send(self, sock: socket.socket, now: float) -> int:
        """Send once, as much as is due and `sock` takes: how many bytes.

        Raises OSError if the peer is gone.
        """
        self._release(now)
        if not self._ready:
            return 0
        try:
            sent = sock.send(self._ready)
        except (BlockingIOError, InterruptedError):
            return 0
        del self._ready[:sent]
        self.size -= sent
        return sent

    def _release(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            for chunk in self._queue[0][1]:
                self._ready += chunk
                if len(self._ready) >= SEND_BYTES:
                    return
            self._queue.popleft()

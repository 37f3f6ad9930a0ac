"""Pipelines to many servers at once: everything is sent before anything is awaited.

memcached stops reading while it cannot write, so a client that sends everything
first and reads afterwards hangs as soon as both kernels' buffers are full. Here
reading goes on while writing, and at most a window of request bytes is unanswered.
"""

from __future__ import annotations

import select
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from django_safecache.exceptions import DeadlineError, ProtocolError, ReplyError
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.failures import TRANSPORT_ERRORS
from django_safecache.memcached.outcomes import Phase


class Replies(Protocol):
    """What `Exchange` needs of a parser: see `protocol`."""

    @property
    def answered(self) -> int: ...

    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> None: ...


class Exchange:
    """Command lines to one server on one connection, and their replies.

    It ends `done`, and then either every line was answered or `error` says why
    not. What `replies` has understood before an error stands.
    """

    def __init__(
        self,
        connection: Connection,
        lines: Sequence[bytes],
        replies: Replies,
        *,
        window: int,
        timeout: float,
    ) -> None:
        self.connection = connection
        self.replies = replies
        self.error: BaseException | None = None
        self.phase: Phase = "send"
        self.done = False
        self.bytes_sent = 0
        self.bytes_received = 0
        self.ended = 0.0
        self.expires = time.monotonic() + timeout
        self.writing = True
        self._lines = lines
        self._window = window
        self._timeout = timeout
        self._queued = 0
        self._outgoing: bytes | memoryview = b""
        self._ends: list[int] = []
        connection.in_flight = True

    def write(self) -> None:
        """Send what the window and the kernel allow."""
        try:
            while self._outgoing or self._fill():
                sent = self.connection.send(self._outgoing)
                if not sent:
                    return
                self.bytes_sent += sent
                self.expires = time.monotonic() + self._timeout
                if sent < len(self._outgoing):
                    self._outgoing = memoryview(self._outgoing)[sent:]
                else:
                    self._outgoing = b""
            self.writing = False
            self.phase = "receive"
        except TRANSPORT_ERRORS as error:
            self._hear_last_words()
            self.fail(error)

    def _fill(self) -> bool:
        """Queue the next lines, joined: a packet for each would be slower, and
        fills the server's buffers sooner."""
        if self._queued == len(self._lines):
            return False
        if self._queued == 0:
            request = b"".join(self._lines)
            if len(request) <= self._window:
                self._outgoing, self._queued = request, len(self._lines)
                return True
            self._ends = list(accumulate(map(len, self._lines)))
        stop = self._window_end()
        self._outgoing = b"".join(self._lines[self._queued : stop])
        self._queued = stop
        return len(self._outgoing) > 0

    def _window_end(self) -> int:
        """How many lines the window allows to be queued by now. A line that is larger
        than the window goes alone."""
        answered = self.replies.answered
        base = self._ends[answered - 1] if answered else 0
        stop = bisect_right(self._ends, base + self._window, self._queued)
        return max(stop, answered + 1) if self._queued == answered else stop

    def _hear_last_words(self) -> None:
        """Before it closes, a server may have said why: worth more than EPIPE."""
        try:
            self.replies.feed(self.connection.receive())
        except (ReplyError, ProtocolError) as error:
            self.fail(error, "parse")
        except TRANSPORT_ERRORS:  # it said nothing
            pass

    def read(self) -> None:
        """Take what has arrived; send more if that opened the window."""
        try:
            while True:
                self.phase = "receive"
                data = self.connection.receive()
                if not data:
                    break
                self.bytes_received += len(data)
                self.phase = "parse"
                self.replies.feed(data)
                if self.replies.answered > self._queued:
                    raise ProtocolError("more replies than commands")
                if not self.connection.has_more(data):
                    break
        except TRANSPORT_ERRORS as error:
            self.fail(error)
            return
        self.expires = time.monotonic() + self._timeout
        if self.replies.complete:
            self.connection.in_flight = False
            self._end()
        elif self._queued < len(self._lines):
            self.writing = True
            self.write()

    def fail(self, error: BaseException, phase: Phase | None = None) -> None:
        """End with `error`; the first one is the one that counts."""
        if self.error is None:
            self.error = error
            self.phase = phase or self.phase
        self._end()

    def _end(self) -> None:
        self.done = True
        self.ended = time.monotonic()

    @property
    def outstanding(self) -> int:
        """How many lines are queued or sent and not answered."""
        return self._queued - self.replies.answered


def converse(exchanges: Sequence[Exchange], deadline: float) -> None:
    """Carry on all `exchanges` until each is done.

    An exchange fails with `TimeoutError` after its timeout without progress, and
    with `DeadlineError` at the monotonic time `deadline`. Raises nothing itself;
    what interrupts it leaves connections marked in flight.
    """
    if len(exchanges) == 1:
        _converse_alone(exchanges[0], deadline)
    else:
        _converse_together(exchanges, deadline)


def _converse_alone(exchange: Exchange, deadline: float) -> None:
    """The most common case, for which the connection's own poller is enough."""
    wait = exchange.connection.wait
    while not exchange.done:
        left = min(exchange.expires, deadline) - time.monotonic()
        _serve(exchange, wait(exchange.writing, max(left, 0.0)))
        if left <= 0:
            _expire(exchange, deadline)


def _converse_together(exchanges: Sequence[Exchange], deadline: float) -> None:
    poller = select.poll()
    active: dict[int, Exchange] = {}
    for exchange in exchanges:
        if not exchange.done:
            fd = exchange.connection.fileno()
            active[fd] = exchange
            poller.register(fd, _events(exchange))
    while active:
        until = min(deadline, *[each.expires for each in active.values()])
        left = max(until - time.monotonic(), 0.0)
        for fd, event in poller.poll(left * 1000):
            exchange = active[fd]
            was_writing = exchange.writing
            _serve(exchange, event)
            if exchange.writing is not was_writing:
                poller.modify(fd, _events(exchange))
        for fd, exchange in list(active.items()):
            _expire(exchange, deadline)
            if exchange.done:
                poller.unregister(fd)
                del active[fd]


def _serve(exchange: Exchange, event: int) -> None:
    if event & ~select.POLLOUT:
        exchange.read()
    if event & select.POLLOUT and not exchange.done:
        exchange.write()


def _events(exchange: Exchange) -> int:
    return select.POLLIN | select.POLLOUT if exchange.writing else select.POLLIN


def _expire(exchange: Exchange, deadline: float) -> None:
    now = time.monotonic()
    if exchange.done:
        return
    if now >= deadline:
        exchange.fail(DeadlineError("the call's deadline passed"))
    elif now >= exchange.expires:
        exchange.fail(TimeoutError("timed out"))

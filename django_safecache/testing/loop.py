"""The thread that serves: one selector, all sockets, no locks around the store."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from django_safecache.testing.connection import Connection, Ending, Service, hang_up

T = TypeVar("T")

BACKLOG = 1024
CALL_TIMEOUT = 10.0
ACCEPT_RETRY = 0.01
TOO_MANY = b"ERROR Too many open connections\r\n"

logger = logging.getLogger(__name__)


class LoopClosedError(RuntimeError):
    """The loop has ended and takes no more calls."""


class Loop:
    """Serves a bound socket until `close`, in a daemon thread of its own.

    `bind` makes another socket bound to the same address, for when listening
    stops and is to begin again. Public methods are thread-safe.
    """

    def __init__(
        self, bind: Callable[[], socket.socket], service: Service, max_connections: int
    ) -> None:
        self._bind = bind
        self._service = service
        self._max_connections = max_connections
        self._listener = bind()
        self._listening = False
        self.address = self._listener.getsockname()
        """What the socket is bound to."""
        self._selector = selectors.DefaultSelector()
        self._masks: dict[Connection, int] = {}
        self._sleepers: dict[Connection, float] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._closed = False
        self._wakes, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Listen, unless faults refuse connections, and begin to serve."""
        self._wakes.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._wakes, selectors.EVENT_READ, self._on_wake)
        try:
            self.listen(not self._service.injector.faults.refuse)
        except OSError:
            self._shut()
            raise
        self._thread.name = f"LocalMemcached {self.address}"
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the loop's thread and return what it returns.

        Raises what it raises, or LoopClosedError.
        """
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise LoopClosedError("the server was stopped")
            self._calls.append(partial(_settle, future, function))
            self._wake()
        return future.result(CALL_TIMEOUT)

    def close(self) -> None:
        """Close listener and connections, and wait for the thread to end."""
        self._closing = True
        with self._lock:
            if not self._closed:
                self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets; the parent's live on."""
        self._selector.close()
        for sock in (self._listener, self._wakes, self._waker):
            sock.close()
        for connection in self._masks:
            connection.sock.close()

    def listen(self, wanted: bool) -> None:
        """Begin or cease to listen. Only from the loop's thread, or before it runs.

        The address stays reserved: a socket is bound to it that does not listen.
        """
        if wanted and not self._listening:
            self._listener.listen(BACKLOG)
            events = selectors.EVENT_READ
            self._selector.register(self._listener, events, self._on_accept)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = self._bind()
        self._listening = wanted

    def drop_connections(self, ending: Ending) -> None:
        """Close all connections. Only from the loop's thread."""
        for connection in list(self._masks):
            self._remove(connection)
            hang_up(connection.sock, ending)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._masks)

    def _serve(self) -> None:
        try:
            while not self._closing:
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._wake_sleepers()
                self._answer_calls()
        finally:
            self._shut()

    def _shut(self) -> None:
        with self._lock:
            self._closed = True
        self._answer_calls()
        self.drop_connections("drop")
        self._selector.close()
        for sock in (self._listener, self._wakes, self._waker):
            sock.close()

    def _patience(self) -> float | None:
        """Seconds until a delayed reply is due; None if there is none."""
        if not self._sleepers:
            return None
        return max(0.0, min(self._sleepers.values()) - time.monotonic())

    def _wake_sleepers(self) -> None:
        now = time.monotonic()
        for connection in [c for c, due in self._sleepers.items() if due <= now]:
            self._guard(connection, connection.on_writable)

    def _on_wake(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakes.recv(4096)

    def _wake(self) -> None:
        # Full means that the loop has been told often enough.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")

    def _answer_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _on_accept(self, mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of file descriptors: the listener stays readable, so do not spin.
            time.sleep(ACCEPT_RETRY)
            return
        self._service.record.connections_accepted += 1
        self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        verdict = self._service.injector.on_accept()
        if len(self._masks) >= self._max_connections:
            verdict = "reject"
        match verdict:
            case "serve":
                self._add(sock)
            case "reject":
                self._service.count("rejected_connections")
                with contextlib.suppress(OSError):
                    sock.send(TOO_MANY)
                sock.close()
            case ending:
                hang_up(sock, ending)

    def _add(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._service.count("total_connections")
        self._service.count("curr_connections")
        connection = Connection(sock, self._service)
        self._masks[connection] = 0
        self._watch(connection)

    def _remove(self, connection: Connection) -> None:
        if self._masks.pop(connection):
            self._selector.unregister(connection.sock)
        self._sleepers.pop(connection, None)
        self._service.count("curr_connections", -1)

    def _on_event(self, connection: Connection, mask: int) -> None:
        readable = mask & selectors.EVENT_READ
        action = connection.on_readable if readable else connection.on_writable
        self._guard(connection, action)

    def _guard(self, connection: Connection, action: Callable[[], None]) -> None:
        try:
            if connection in self._masks:  # not closed since the event came
                action()
        except OSError:  # the client is gone, which is its right
            connection.finished = True
        except Exception:  # Faults.only is anybody's code; the others are served on
            logger.exception("a connection was closed because of this")
            connection.finished = True
        if connection not in self._masks:
            return
        if connection.finished:
            self._remove(connection)
            connection.close()
        else:
            self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Bring the selector up to date with what `connection` waits for."""
        before = self._masks[connection]
        after, due = connection.interest()
        self._sleepers.pop(connection, None)
        if due is not None:
            self._sleepers[connection] = due
        if before == after:
            return
        if before:
            self._selector.unregister(connection.sock)
        if after:
            data = partial(self._on_event, connection)
            self._selector.register(connection.sock, after, data)
        self._masks[connection] = after


def _settle(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # the caller's, wherever it came from
        future.set_exception(error)

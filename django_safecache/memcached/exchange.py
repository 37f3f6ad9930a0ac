"""Pipelines to many servers at once: everything is sent before anything is awaited.

memcached stops reading while it cannot write, so a client that sends everything
first and reads afterwards hangs as soon as both kernels' buffers are full. Here
reading goes on while writing, and at most a window of request bytes is unanswered.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable, Sequence
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

    Lines are taken from `lines` as the window opens, so that a request of any size
    needs no more memory than the window. It ends `done`, and then either every line
    was answered or `error` says why not. What `replies` has understood before an
    error stands.
    """

    def __init__(
        self,
        connection: Connection,
        lines: Iterable[bytes],
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
        self.queued = 0
        self._lines = iter(lines)
        self._next = next(self._lines, None)
        self._window = window
        self._timeout = timeout
        self._outgoing: bytes | memoryview = b""
        self._unanswered: deque[int] = deque()
        self._unanswered_bytes = 0
        connection.in_flight = True
        if self._next is None:
            connection.in_flight = False
            self._end()

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
        """Queue the next lines that the window allows, joined: a packet for each would
        be slower, and fills the server's buffers sooner. A line that is larger than
        the window goes alone."""
        sizes = self._unanswered
        while len(sizes) > self.outstanding:
            self._unanswered_bytes -= sizes.popleft()
        joined = []
        while (line := self._next) is not None:
            if self._unanswered_bytes + len(line) > self._window and sizes:
                break
            joined.append(line)
            sizes.append(len(line))
            self._unanswered_bytes += len(line)
            self._next = next(self._lines, None)
            self.queued += 1
        self._outgoing = b"".join(joined)
        return len(joined) > 0

    def _hear_last_words(self) -> None:
        """Before it closes, a server may have said why: worth more than EPIPE."""
        try:
            self._feed(self.connection.receive())
        except (ReplyError, ProtocolError) as error:
            self.fail(error, "parse")
        except TRANSPORT_ERRORS:  # it said nothing
            pass

    def take_over(self, data: bytes, error: BaseException | None) -> None:
        """Go on where the connection was asked the only line, and then `data` received
        or `error` raised."""
        self._fill()
        self.bytes_sent = self.connection.asked
        if self.bytes_sent == len(self._outgoing):
            self.writing = False
            self.phase = "receive"
        self._outgoing = b""
        if error is not None:
            self.fail(error)
        else:
            self._take(data)

    def read(self) -> None:
        """Take what has arrived; send more if that opened the window."""
        try:
            self.phase = "receive"
            data = self.connection.receive()
        except TRANSPORT_ERRORS as error:
            self.fail(error)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            while data:
                self.phase = "parse"
                self._feed(data)
                self.phase = "receive"
                if not self.connection.has_more():
                    break
                data = self.connection.receive()
        except TRANSPORT_ERRORS as error:
            self.fail(error)
            return
        self.expires = time.monotonic() + self._timeout
        if self.replies.complete and self._outgoing:
            self.fail(ProtocolError("an answer before all of the command"), "parse")
        elif self.replies.complete:
            self.connection.in_flight = False
            self._end()
        elif self._next is not None:
            self.writing = True
            self.write()

    def _feed(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self.replies.feed(data)
        if self.replies.answered > self.queued:
            raise ProtocolError("more replies than commands")

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
        return self.queued - self.replies.answered


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
        now = time.monotonic()
        left = min(exchange.expires, deadline) - now
        event = wait(exchange.writing, max(left, 0.0))
        _serve(exchange, event)
        if left <= 0:
            _expire(exchange, now, deadline, had_something=event != 0)


def _converse_together(exchanges: Sequence[Exchange], deadline: float) -> None:
    poller = select.poll()
    active: dict[int, Exchange] = {}
    for exchange in exchanges:
        if not exchange.done:
            fd = exchange.connection.fileno()
            active[fd] = exchange
            poller.register(fd, _events(exchange))
    while active:
        now = time.monotonic()
        until = min(deadline, *[each.expires for each in active.values()])
        events = dict(poller.poll(max(until - now, 0.0) * 1000))
        for fd, event in events.items():
            exchange = active[fd]
            was_writing = exchange.writing
            _serve(exchange, event)
            if exchange.writing is not was_writing:
                poller.modify(fd, _events(exchange))
        for fd, exchange in list(active.items()):
            _expire(exchange, now, deadline, had_something=fd in events)
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


def _expire(
    exchange: Exchange, now: float, deadline: float, *, had_something: bool
) -> None:
    """Fail what was late at the time `now`, and was looked at once more since: another
    server's values may have taken all the time."""
    if exchange.done:
        return
    phase: Phase = "send" if exchange.writing else "receive"
    if now >= deadline:
        exchange.fail(DeadlineError("the call's deadline passed"), phase)
    elif now >= exchange.expires and not had_something:
        exchange.fail(TimeoutError("timed out"), phase)

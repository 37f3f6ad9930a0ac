"""One server's share of one call: what is still to be asked, what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from django_safecache.exceptions import ReplyError
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.exchange import Exchange, Replies
from django_safecache.memcached.failures import classify, errno_of
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure, FailureKind, Outcome, Phase
from django_safecache.memcached.server import Server

NEVER_RETRIED = frozenset(["add", "incr", "decr"])
"""Operations that may have been carried out although no answer came: a second
``add`` would say False for the caller's own item, a second ``incr`` counts twice."""

NOT_STALE = frozenset[FailureKind](["timeout", "deadline"])
SAYS_NOTHING_OF_THE_SERVER = frozenset[FailureKind](["deadline", "pool_exhausted"])
"""Where no exchange began: other servers took the time, or other threads the
connections."""


class Job:
    """Rounds of asking one server, until all is answered or hope is lost.

    A round is an exchange on one connection. `lost` are the keys without an
    answer once no round is left; `failures` says what went wrong on the way, also
    where a later round made it good.
    """

    operation: str

    def __init__(self, server: Server, options: Options) -> None:
        self.server = server
        self.options = options
        self.exchange: Exchange | None = None
        self.failures: list[Failure] = []
        self.may_be_repeated = True
        self.doubts_server = False
        """Whether the server is to show that it is alive before the next round."""
        self.lines = 0
        self.retries = 0
        self.splits = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.finished = 0.0
        self._again = True
        self._rounds = 0

    # What the kinds of job differ in.

    def _lines(self) -> Iterable[bytes]:
        raise NotImplementedError

    def _replies(self) -> Replies:
        raise NotImplementedError

    def _absorb(self, replies: Any) -> None:
        """Keep what `replies` understood; what is left is asked in another round."""
        raise NotImplementedError

    def _refused(self, error: ReplyError, exchange: Exchange) -> bool:
        """After an error line about a command: whether another round has a chance."""
        return False

    def _cut_off(self, kind: FailureKind) -> bool:
        """After a failure of a fresh connection: whether another round has a chance."""
        return False

    def remaining(self) -> Sequence[object]:
        """The caller's keys that have no answer."""
        raise NotImplementedError

    def unwritten(self) -> Iterable[tuple[Sequence[bytes], bool]]:
        """The made keys of writes that came to nothing, and must leave no old value;
        and whether the server may carry them out yet."""
        return ()

    def _counts(self) -> dict[str, Any]:
        """The fields of the outcome that this kind of job has."""
        raise NotImplementedError

    def outcome(self, alias: str, started: float) -> Outcome:
        """What it all came to, once no round is left."""
        return Outcome(
            alias=alias,
            server=self.server.name,
            operation=self.operation,
            lines=self.lines,
            retries=self.retries,
            splits=self.splits,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            duration=self.finished - started,
            failures=tuple(self.failures),
            **self._counts(),
        )

    # A round.

    def wants_a_round(self) -> bool:
        return self._again

    def start(self, connection: Connection) -> None:
        """Begin a round on an open `connection` and send its first window."""
        self.exchange = self._new_exchange(connection)
        self.exchange.write()

    def take_over(
        self, connection: Connection, data: bytes, error: BaseException | None
    ) -> None:
        """Go on with a round of one line, which was sent on `connection` already."""
        self.exchange = self._new_exchange(connection)
        self.exchange.take_over(data, error)

    def _new_exchange(self, connection: Connection) -> Exchange:
        return Exchange(
            connection,
            self._lines(),
            self._replies(),
            window=self._window(),
            timeout=self.options.timeout,
        )

    def _window(self) -> int:
        return self.options.window_bytes

    def give_up(self, error: BaseException, phase: Phase = "connect") -> None:
        """End without an exchange: the server could not be reached."""
        kind = classify(error, phase)
        self._again = False
        if not self.doubts_server:  # else there is a failure that says more
            self._fail(kind, error, phase)
        if kind not in SAYS_NOTHING_OF_THE_SERVER:
            self.server.breaker.failed(kind)
        self.finished = time.monotonic()

    def skip(self) -> None:
        """End without asking: the server's breaker is open."""
        self._again = False
        self._fail("breaker_open", None, "connect")
        self.finished = time.monotonic()

    def add_to_its_own(self, other: Job, *, believed: bool) -> None:
        """Count what `other` did on the way as done by this one; if the server is not
        to be `believed` after it, end without asking."""
        self.lines += other.lines
        self.retries += other.retries
        self.bytes_sent += other.bytes_sent
        self.bytes_received += other.bytes_received
        keys = 0 if believed else len(self.remaining())
        self.failures += [replace(each, keys=keys) for each in other.failures]
        if not believed:
            self._again = False
            self.finished = time.monotonic()

    def end_round(self) -> None:
        """Give the connection back, keep what was answered, decide on another round."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        self.server.pool.give_back(exchange.connection, exchange.ended)
        self._again = False
        self.lines += exchange.queued
        if self._rounds:
            self.retries += exchange.queued
        self._rounds += 1
        self.bytes_sent += exchange.bytes_sent
        self.bytes_received += exchange.bytes_received
        self.finished = exchange.ended
        self._absorb(exchange.replies)
        if exchange.error is None:
            self.server.breaker.succeeded()
        else:
            self._failed_round(exchange, exchange.error)

    def abandon_round(self) -> None:
        """After an interruption: make sure that nobody reads this call's answers."""
        if self.exchange is not None:
            exchange = self.exchange
            self.bytes_sent += exchange.bytes_sent
            self.server.pool.give_back(exchange.connection, exchange.ended)
            self.exchange = None

    def _failed_round(self, exchange: Exchange, error: BaseException) -> None:
        kind = classify(error, exchange.phase)
        self._fail(kind, error, exchange.phase, exchange)
        self._tell_breaker(kind, exchange)
        if isinstance(error, ReplyError):
            again = kind != "too_many_connections" and self._refused(error, exchange)
        elif exchange.connection.reused and kind not in NOT_STALE:
            again = True
        else:
            again = self._cut_off(kind)
        if not (again and self.may_be_repeated and self.remaining()):
            return
        # The server was restarted, or closes idle connections: what else is idle is
        # as old.
        self.server.pool.close_idle()
        self._again = True

    def _tell_breaker(self, kind: FailureKind, exchange: Exchange) -> None:
        if exchange.phase == "parse":
            self.server.breaker.succeeded()
        elif kind != "deadline":
            self.server.breaker.failed(kind)
        elif not exchange.bytes_received:
            # A big call may need longer than its deadline; a server that said
            # nothing at all in that time is another matter.
            self.server.breaker.failed("timeout")

    def _fail(
        self,
        kind: FailureKind,
        error: BaseException | None,
        phase: Phase,
        exchange: Exchange | None = None,
    ) -> None:
        connection = exchange.connection if exchange else None
        self.failures.append(
            Failure(
                kind=kind,
                server=self.server.name,
                phase=phase,
                exception=exception_name(error),
                errno=errno_of(error),
                text=str(error or ""),
                keys=len(self.remaining()),
                bytes_sent=exchange.bytes_sent if exchange else 0,
                bytes_received=exchange.bytes_received if exchange else 0,
                connection_age=(
                    time.monotonic() - connection.opened if connection else None
                ),
            )
        )


def exception_name(error: BaseException | None) -> str:
    """The qualified class name; empty for None."""
    cls = type(error)
    return f"{cls.__module__}.{cls.__qualname__}" if error else ""

"""One server's share of one call: what is still to be asked, what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django_safecache.exceptions import (
    PoolExhaustedError,
    ReplyError,
    UndecodableValueError,
)
from django_safecache.memcached import protocol
from django_safecache.memcached.batching import split_batches
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.exchange import Exchange, Replies
from django_safecache.memcached.failures import classify
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure, FailureKind, Outcome, Phase
from django_safecache.memcached.serde import decode, decode_all
from django_safecache.memcached.server import Server

NEVER_RETRIED = frozenset(["add", "incr", "decr"])
"""Operations that may have been carried out although no answer came: a second
``add`` would say False for the caller's own item, a second ``incr`` counts twice."""

NOT_STALE = frozenset[FailureKind](["timeout", "deadline"])
MAX_REFUSALS = 8
"""Error lines after which a server's remaining commands are given up."""


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
        self.lines = 0
        self.retries = 0
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
        """After an error line: whether another round has a chance."""
        return False

    def remaining(self) -> Sequence[object]:
        """The caller's keys that have no answer."""
        raise NotImplementedError

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
        self._fail(kind, error, phase)
        if not isinstance(error, PoolExhaustedError):  # that says nothing of the server
            self.server.breaker.failed(kind)
        self.finished = time.monotonic()

    def skip(self) -> None:
        """End without asking: the server's breaker is open."""
        self._again = False
        self._fail("breaker_open", None, "connect")
        self.finished = time.monotonic()

    def end_round(self) -> None:
        """Give the connection back, keep what was answered, decide on another round."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        self.server.pool.give_back(exchange.connection)
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
            self.server.pool.give_back(self.exchange.connection)
            self.exchange = None

    def _failed_round(self, exchange: Exchange, error: BaseException) -> None:
        kind = classify(error, exchange.phase)
        self._fail(kind, error, exchange.phase, exchange)
        self._tell_breaker(kind, exchange)
        if isinstance(error, ReplyError):
            again = self._refused(error, exchange)
        else:
            again = exchange.connection.reused and kind not in NOT_STALE
        if not again or self.operation in NEVER_RETRIED or not self.remaining():
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
                exception=_name(error),
                errno=getattr(error, "errno", None),
                text=str(error or ""),
                keys=len(self.remaining()),
                bytes_sent=exchange.bytes_sent if exchange else 0,
                bytes_received=exchange.bytes_received if exchange else 0,
                connection_age=(
                    time.monotonic() - connection.opened if connection else None
                ),
            )
        )


def _name(error: BaseException | None) -> str:
    cls = type(error)
    return f"{cls.__module__}.{cls.__qualname__}" if error else ""


class GetJob(Job):
    """``get`` lines; `found` holds the values by the caller's keys."""

    operation = "get"

    def __init__(
        self, server: Server, options: Options, labels: Mapping[bytes, object]
    ) -> None:
        super().__init__(server, options)
        self.labels = labels
        self.found: dict[object, Any] = {}
        self._batches = split_batches(
            list(labels),
            max_bytes=options.batch_max_bytes,
            max_keys=options.batch_max_keys,
        )

    def _lines(self) -> Iterable[bytes]:
        return map(protocol.get_line, self._batches)

    def _replies(self) -> Replies:
        return protocol.GetReplies(self._batches)

    def _absorb(self, replies: protocol.GetReplies) -> None:
        self._batches = self._batches[replies.answered :]
        try:
            found = decode_all(self.options.serde, self.labels, replies.items)
        except Exception:  # unpickling runs anybody's code
            found = self._decode_one_by_one(replies.items)
        self.found = {**self.found, **found} if self.found else found

    def _decode_one_by_one(self, items: Sequence[protocol.Item]) -> dict[object, Any]:
        """The values that can be decoded; each that cannot is a miss, and counted."""
        found: dict[object, Any] = {}
        undecodable: Counter[str] = Counter()
        for key, flags, value in items:
            try:
                value = decode(self.options.serde, key, value, int(flags))
            except UndecodableValueError as error:
                undecodable[str(error)] += 1
            else:
                found[self.labels[key]] = value
        for text, count in undecodable.items():
            self._undecodable(text, count)
        return found

    def _undecodable(self, text: str, keys: int) -> None:
        self.failures.append(
            Failure(
                kind="undecodable",
                server=self.server.name,
                phase="parse",
                exception=_name(UndecodableValueError()),
                errno=None,
                text=text,
                keys=keys,
                bytes_sent=0,
                bytes_received=0,
                connection_age=None,
            )
        )

    def remaining(self) -> Sequence[object]:
        labels = [self.labels[key] for batch in self._batches for key in batch]
        return [label for label in labels if label not in self.found]

    def _counts(self) -> dict[str, Any]:
        lost = self.remaining() if self._batches else ()
        return {
            "keys": self.labels.values(),
            "found": self.found,
            "lost": lost,
            "hits": len(self.found),
            "misses": len(self.labels) - len(self.found) - len(lost),
            "unavailable": len(lost),
        }


class CommandJob(Job):
    """Commands that are answered by one line each; `statuses` by the caller's keys.

    An error line among the answers of a pipeline does not say which command it is
    for: some servers drop the answers around it. So what has no answer by then is
    asked again, one command at a time, and then the error line is that command's:
    its status is the error's text.
    """

    def __init__(
        self,
        server: Server,
        options: Options,
        operation: str,
        commands: Sequence[tuple[object, bytes]],
    ) -> None:
        super().__init__(server, options)
        self.operation = operation
        self.statuses: dict[object, bytes] = {}
        self.refusals: dict[object, str] = {}
        self._keys = [label for label, _ in commands]
        self._commands = commands
        self._one_at_a_time = False

    def _lines(self) -> Iterable[bytes]:
        return (line for _, line in self._commands)

    def _replies(self) -> Replies:
        return protocol.StatusReplies(self.operation, len(self._commands))

    def _window(self) -> int:
        return 1 if self._one_at_a_time else super()._window()

    def _absorb(self, replies: protocol.StatusReplies) -> None:
        for (label, _), status in zip(self._commands, replies.statuses, strict=False):
            self.statuses[label] = status
        self._commands = self._commands[replies.answered :]

    def _refused(self, error: ReplyError, exchange: Exchange) -> bool:
        if exchange.outstanding > 1:
            self._one_at_a_time = True
            return True
        label, _ = self._commands[0]
        self.refusals[label] = error.text
        self._commands = self._commands[1:]
        return len(self.refusals) < MAX_REFUSALS

    def remaining(self) -> Sequence[object]:
        return [label for label, _ in self._commands]

    def _counts(self) -> dict[str, Any]:
        lost = self.remaining()
        answers = Counter(self.statuses.values())
        return {
            "keys": self._keys,
            "lost": lost,
            "unavailable": len(lost),
            "stored": answers[b"STORED"],
            "deleted": answers[b"DELETED"],
        }

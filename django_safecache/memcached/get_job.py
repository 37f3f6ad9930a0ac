"""Values by ``get`` lines: one server's share of a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from django_safecache.exceptions import ReplyError, UndecodableValueError
from django_safecache.memcached.batching import get_lines
from django_safecache.memcached.exchange import Exchange, Replies
from django_safecache.memcached.get_replies import GetReplies, Items
from django_safecache.memcached.job import Job, exception_name
from django_safecache.memcached.line_limit import SAFE_LINE
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure, FailureKind
from django_safecache.memcached.protocol import get_line, keys_of
from django_safecache.memcached.serde import Serde, decode, decode_all
from django_safecache.memcached.server import Server

CUTS_OFF = frozenset[FailureKind](["epipe", "reset", "closed"])
"""What a server does about a line that is too long for it, if it does not say so."""


class Received:
    """What has come of the keys asked for: the objects in `found`, by their labels.

    Not the job itself: a parser that refers to the job that it is part of would keep
    the connection of an interrupted call until the collector comes.
    """

    def __init__(
        self, serde: Serde, keys: Sequence[bytes], labels: Sequence[object]
    ) -> None:
        self.keys = keys
        self.labels = labels
        self.doubted: Collection[bytes] = ()
        """Keys of which what comes may be old: they are missing."""
        self.found: dict[object, Any] = {}
        self.hits = 0
        self.undecodable: list[object] = []
        self.problems: Counter[str] = Counter()
        self._serde = serde
        self._in_order = 0

    def keep(self, items: Items) -> None:
        """Decode what arrived while it is at hand, and while the server sends more."""
        if self.doubted:
            items = items.without(self.doubted)
        if not items.keys:
            return
        labels = self._next_labels(items.keys) or self.labels_of(items.keys)
        try:
            self.found.update(decode_all(self._serde, labels, items))
            self.hits += len(items.keys)
        except Exception:  # unpickling runs anybody's code
            self._keep_one_by_one(labels, items)

    def _keep_one_by_one(self, labels: Sequence[object], items: Items) -> None:
        """What can be decoded; each value that cannot is a miss, and counted."""
        for label, (key, flags, value) in zip(labels, items.rows(), strict=True):
            try:
                self.found[label] = decode(self._serde, key, flags, value)
                self.hits += 1
            except UndecodableValueError as error:
                self.problems[str(error)] += 1
                self.undecodable.append(label)

    def _next_labels(self, keys: Sequence[bytes]) -> Sequence[object]:
        """Those of `keys` if nothing was missing so far, nor is now; else none."""
        start, stop = self._in_order, self._in_order + len(keys)
        if keys != self.keys[start:stop]:
            return ()
        self._in_order = stop
        return self.labels[start:stop]

    def labels_of(self, keys: Iterable[bytes]) -> Sequence[object]:
        """What the caller calls `keys`, some of those asked for."""
        return [self._by_key[key] for key in keys]

    @cached_property
    def _by_key(self) -> Mapping[bytes, object]:
        return dict(zip(self.keys, self.labels, strict=True))


class GetJob(Job):
    """``get`` lines. A value that cannot be decoded is counted as a miss."""

    operation = "get"

    def __init__(
        self,
        server: Server,
        options: Options,
        keys: Sequence[bytes],
        labels: Sequence[object],
    ) -> None:
        super().__init__(server, options)
        self.received = Received(options.serde, keys, labels)
        self._max_bytes = server.line_limit.of(options.batch_max_bytes)
        self._halved = False
        self._longest_answered = 0
        self._suspect = b""
        # Made when the server is asked: where its breaker is open, it never is.
        self._unanswered: list[bytes] | None = None

    def _get_lines(self, keys: Sequence[bytes]) -> list[bytes]:
        max_keys = self.options.batch_max_keys
        return get_lines(keys, max_bytes=self._max_bytes, max_keys=max_keys)

    def _lines(self) -> list[bytes]:
        if self._unanswered is None:
            self.received.doubted = self.server.unwritten.among(self.received.keys)
            self._unanswered = self._get_lines(self.received.keys)
        return self._unanswered

    def _replies(self) -> Replies:
        return GetReplies(self._lines(), self.received.keep)

    def _absorb(self, replies: GetReplies) -> None:
        lines = self._lines()
        answered, unanswered = lines[: replies.answered], lines[replies.answered :]
        self._longest_answered = max([self._longest_answered, *map(len, answered)])
        self._suspect = b""
        if unanswered:
            # Of the line that was cut, ask again only for what did not arrive.
            asked = keys_of(unanswered[0])
            cut = [key for key in asked if key in replies.owed]
            if len(cut) == len(asked):  # else the server has taken the line
                self._suspect = unanswered[0]
            unanswered[:1] = [get_line(b" ".join(cut))] if cut else []
        elif self._halved:
            self.server.line_limit.learn(self._max_bytes)
        self._unanswered = unanswered
        problems = self.received.problems
        while problems:
            self._undecodable(*problems.popitem())

    def _refused(self, error: ReplyError, exchange: Exchange) -> bool:
        too_long = error.text == "ERROR" or "too long" in error.text
        return too_long and self._halve_lines()

    def _cut_off(self, kind: FailureKind) -> bool:
        # If the server is there at all, it may be the length that it does not take.
        self.doubts_server = kind in CUTS_OFF and self._halve_lines()
        return self.doubts_server

    def _halve_lines(self) -> bool:
        """Ask what is left in lines half as long, if the first that has no answer has
        two keys, and is longer than all that have one."""
        size = len(self._suspect)
        if size <= self._longest_answered or len(keys_of(self._suspect)) < 2:
            return False
        self._halved = self._halved or size > SAFE_LINE
        self._max_bytes = size // 2
        self.splits += sum(len(line) > self._max_bytes for line in self._lines())
        self._unanswered = self._get_lines(
            [key for line in self._lines() for key in keys_of(line)]
        )
        return True

    def _undecodable(self, text: str, keys: int) -> None:
        self.failures.append(
            Failure(
                kind="undecodable",
                server=self.server.name,
                phase="parse",
                exception=exception_name(UndecodableValueError()),
                errno=None,
                text=text,
                keys=keys,
                bytes_sent=0,
                bytes_received=0,
                connection_age=None,
            )
        )

    def remaining(self) -> Sequence[object]:
        if self._unanswered is None:
            return self.received.labels
        return [
            label
            for line in self._unanswered
            for label in self.received.labels_of(keys_of(line))
        ]

    def _counts(self) -> dict[str, Any]:
        received, lost = self.received, self.remaining()
        return {
            "keys": received.labels,
            "found": received.found,
            "lost": lost,
            # Not len(found): two keys may have labels that are equal, as 1 and True.
            "hits": received.hits,
            "misses": len(received.labels) - received.hits - len(lost),
            "unavailable": len(lost),
        }

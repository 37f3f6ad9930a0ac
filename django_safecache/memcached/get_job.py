"""Values by ``get`` lines: one server's share of a read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django_safecache.exceptions import UndecodableValueError
from django_safecache.memcached import protocol
from django_safecache.memcached.batching import split_batches
from django_safecache.memcached.exchange import Replies
from django_safecache.memcached.job import Job, exception_name
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure
from django_safecache.memcached.serde import decode, decode_all
from django_safecache.memcached.server import Server


class GetJob(Job):
    """``get`` lines; `found` holds the values by the caller's keys.

    A value that cannot be decoded is counted as a miss; its key is in `undecodable`.
    """

    operation = "get"

    def __init__(
        self, server: Server, options: Options, labels: Mapping[bytes, object]
    ) -> None:
        super().__init__(server, options)
        self.labels = labels
        self.found: dict[object, Any] = {}
        self.undecodable: list[object] = []
        self._hits = 0
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
        items = replies.items
        self._batches = self._batches[replies.answered :]
        if self._batches:
            self._forget_received(items)
        try:
            found = decode_all(self.options.serde, self.labels, items)
            self._hits += len(items)
        except Exception:  # unpickling runs anybody's code
            found = self._decode_one_by_one(items)
        self.found = {**self.found, **found} if self.found else found

    def _forget_received(self, items: Sequence[protocol.Item]) -> None:
        """Of the line that was cut, ask again only for what did not arrive."""
        received = {key for key, _, _ in items}
        cut = [key for key in self._batches[0] if key not in received]
        self._batches[:1] = [cut] if cut else []

    def _decode_one_by_one(self, items: Sequence[protocol.Item]) -> dict[object, Any]:
        """The values that can be decoded; each that cannot is a miss, and counted."""
        found: dict[object, Any] = {}
        problems: Counter[str] = Counter()
        for key, flags, value in items:
            try:
                value = decode(self.options.serde, key, value, int(flags))
            except UndecodableValueError as error:
                problems[str(error)] += 1
                self.undecodable.append(self.labels[key])
            else:
                found[self.labels[key]] = value
                self._hits += 1
        for text, count in problems.items():
            self._undecodable(text, count)
        return found

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
        return [self.labels[key] for batch in self._batches for key in batch]

    def _counts(self) -> dict[str, Any]:
        lost = self.remaining()
        return {
            "keys": self.labels.values(),
            "found": self.found,
            "lost": lost,
            # Not len(found): two keys may have labels that are equal, as 1 and True.
            "hits": self._hits,
            "misses": len(self.labels) - self._hits - len(lost),
            "unavailable": len(lost),
        }

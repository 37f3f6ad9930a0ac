"""The client of many servers: calls are shared out, carried on at once, reported."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any, NamedTuple, Protocol

from django_safecache.memcached import protocol
from django_safecache.memcached.at_once import Asked, ask, found_in
from django_safecache.memcached.command_job import CommandJob
from django_safecache.memcached.get_job import GetJob
from django_safecache.memcached.job import Job
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Failure, Observer
from django_safecache.memcached.placement import Address, Placement
from django_safecache.memcached.rounds import carry_out
from django_safecache.memcached.serde import encode
from django_safecache.memcached.server import Server, ServerStatus


class Labelled(Protocol):
    """Made keys and what the caller calls each: a dictionary, or `MadeKeys`."""

    def keys(self) -> Iterable[bytes]: ...

    def values(self) -> Iterable[Any]: ...


class Values(NamedTuple):
    """What ``get`` found, by the caller's keys; `lost` are those without an answer, and
    `undecodable` those with a value that nothing can be made of."""

    found: dict[Any, Any]
    lost: Sequence[Any] = ()
    failures: Sequence[Failure] = ()
    undecodable: Sequence[Any] = ()


class Statuses(NamedTuple):
    """What the servers said to commands, by the caller's keys.

    `answers` are status words and numbers; `refusals` error lines that were certainly
    for that key; `lost` the keys without an answer, which may or may not have been
    carried out.
    """

    answers: dict[Any, bytes]
    refusals: dict[Any, str]
    lost: Sequence[Any]
    failures: Sequence[Failure]


class Cluster:
    """All servers of one cache. Thread-safe, and safe to use in a forked child.

    No transport failure is raised: it is in what is returned, and in the
    `Outcome` handed to `observer`, one for each server that was asked.
    """

    def __init__(
        self,
        alias: str,
        addresses: Sequence[Address],
        options: Options,
        observer: Observer,
    ) -> None:
        self.alias = alias
        self._options = options
        self._observer = observer
        # Each server once, in the order given.
        unique = list({address.name: address for address in addresses}.values())
        self.servers = [Server(address, options) for address in unique]
        self._placement = Placement([address.name for address in unique])

    def get(self, key: bytes, label: Any) -> Values:
        """The value of one made key, which the caller calls `label`."""
        server, wire = self._server_of(key), self._wire(key)
        if wire in server.unwritten:
            return self.get_many({key: label})
        asked = ask(server, "get", protocol.get_line(wire), self._options)
        if asked is None:
            return self.get_many({key: label})
        found = found_in(asked.data, wire, label, self._options.serde)
        if found is None:
            job = GetJob(server, self._options, [wire], [label])
            self._take_over(job, asked)
            return _values_of([job])
        hits = len(found)
        outcome = asked.settle(
            self.alias, "get", label, found=found, hits=hits, misses=1 - hits
        )
        self._observer.observe(outcome)
        return Values(found)

    def get_many(self, keys: Labelled) -> Values:
        """The values of `keys`, which maps made keys to what the caller calls them."""
        jobs = [
            GetJob(self.servers[index], self._options, self._wire_all(share), labels)
            for index, share, labels in self._shares(keys)
        ]
        self._run(jobs)
        return _values_of(jobs)

    def store_many(
        self,
        operation: str,
        items: Iterable[tuple[Any, bytes, Any]],
        exptime: int,
        *,
        repeat: bool = False,
    ) -> Statuses:
        """``set`` or ``add`` each (caller's key, made key, value), pipelined.

        Whatever the serde raises for a value is raised before anything is sent. An
        ``add`` of which the answers are of no use may be asked to `repeat` what one
        value that is refused has left without an answer.
        """
        return self._command(
            operation,
            [
                (label, key, self._store_line(operation, key, value, exptime))
                for label, key, value in items
            ],
            repeat=repeat,
        )

    def store(
        self, operation: str, label: Any, key: bytes, value: Any, exptime: int
    ) -> Statuses:
        """As `store_many` of one."""
        line = self._store_line(operation, key, value, exptime)
        return self._command_one(operation, label, key, line)

    def _store_line(
        self, operation: str, key: bytes, value: Any, exptime: int
    ) -> bytes:
        data, flags = encode(self._options.serde, key, value)
        wire = self._wire(key)
        return protocol.store_line(operation.encode(), wire, flags, exptime, data)

    def delete_many(self, items: Iterable[tuple[Any, bytes]]) -> Statuses:
        """``delete`` each (caller's key, made key), pipelined."""
        return self._command(
            "delete",
            [
                (label, key, protocol.delete_line(self._wire(key)))
                for label, key in items
            ],
        )

    def delete(self, label: Any, key: bytes) -> Statuses:
        """As `delete_many` of one."""
        line = protocol.delete_line(self._wire(key))
        return self._command_one("delete", label, key, line)

    def touch_many(self, items: Iterable[tuple[Any, bytes]], exptime: int) -> Statuses:
        """``touch`` each (caller's key, made key), pipelined."""
        return self._command(
            "touch",
            [
                (label, key, protocol.touch_line(self._wire(key), exptime))
                for label, key in items
            ],
        )

    def touch(self, label: Any, key: bytes, exptime: int) -> Statuses:
        """As `touch_many` of one."""
        line = protocol.touch_line(self._wire(key), exptime)
        return self._command_one("touch", label, key, line)

    def arithmetic(
        self, operation: str, label: Any, key: bytes, delta: int
    ) -> Statuses:
        """``incr`` or ``decr`` by `delta`, which is not negative."""
        line = protocol.arithmetic_line(operation.encode(), self._wire(key), delta)
        return self._command_one(operation, label, key, line)

    def flush_all(self) -> Statuses:
        """Empty every server; answers and losses are by server name."""
        jobs = [
            CommandJob(
                server, self._options, "flush_all", [(server.name, protocol.FLUSH_ALL)]
            )
            for server in self.servers
        ]
        return self._statuses(jobs)

    def status(self) -> list[ServerStatus]:
        """What this process knows of each server; asks none."""
        return [server.status() for server in self.servers]

    def close(self) -> None:
        """Close all connections that are free; the next call opens new ones."""
        for server in self.servers:
            server.pool.close_idle()

    # Sharing out.

    def _shares(
        self, keys: Labelled
    ) -> Iterable[tuple[int, Sequence[bytes], Sequence[Any]]]:
        """(server's index, its keys, their labels), in order."""
        made, labels = list(keys.keys()), list(keys.values())
        if self._placement.single and made:
            yield 0, made, labels
            return
        servers = self._placement.servers_of(made)
        for index in dict.fromkeys(servers):
            its = [index == each for each in servers]
            yield index, list(compress(made, its)), list(compress(labels, its))

    def _server_of(self, key: bytes) -> Server:
        return self.servers[self._placement.server_of(key)]

    def _wire(self, key: bytes) -> bytes:
        return self._options.key_prefix + key

    def _wire_all(self, keys: Sequence[bytes]) -> Sequence[bytes]:
        return [*map(self._wire, keys)] if self._options.key_prefix else keys

    def _command(
        self,
        operation: str,
        commands: Sequence[tuple[Any, bytes, bytes]],
        *,
        repeat: bool = False,
    ) -> Statuses:
        shares: dict[int, list[tuple[Any, bytes]]] = {}
        servers = self._placement.servers_of([key for _, key, _ in commands])
        for index, (label, _, line) in zip(servers, commands, strict=True):
            shares.setdefault(index, []).append((label, line))
        return self._statuses(
            [
                CommandJob(
                    self.servers[index], self._options, operation, share, repeat=repeat
                )
                for index, share in shares.items()
            ]
        )

    def _statuses(self, jobs: Sequence[CommandJob]) -> Statuses:
        self._run(jobs)
        return _statuses_of(jobs)

    # One command at once.

    def _command_one(
        self, operation: str, label: Any, key: bytes, line: bytes
    ) -> Statuses:
        server = self._server_of(key)
        asked = ask(server, operation, line, self._options)
        if asked is None:
            return self._command(operation, [(label, key, line)])
        status = protocol.sole_status(operation, asked.data)
        if status is None:
            job = CommandJob(server, self._options, operation, [(label, line)])
            self._take_over(job, asked)
            return _statuses_of([job])
        outcome = asked.settle(
            self.alias,
            operation,
            label,
            stored=status == b"STORED",
            deleted=status == b"DELETED",
        )
        self._observer.observe(outcome)
        return Statuses({label: status}, {}, (), ())

    def _take_over(self, job: Job, asked: Asked) -> None:
        job.take_over(asked.connection, asked.data, asked.error)
        self._run([job], asked.started)

    def _run(self, jobs: Sequence[Job], started: float | None = None) -> None:
        started = time.monotonic() if started is None else started
        carry_out(jobs, self._options, started)
        for job in jobs:
            self._observer.observe(job.outcome(self.alias, started))


def _failures_of(jobs: Sequence[Job]) -> list[Failure]:
    """Last those of servers that left keys without an answer: they are the reason."""
    reasons_last = sorted(jobs, key=lambda job: len(job.remaining()) > 0)
    return [failure for job in reasons_last for failure in job.failures]


def _values_of(jobs: Sequence[GetJob]) -> Values:
    found: dict[Any, Any] = jobs[0].received.found if jobs else {}
    for job in jobs[1:]:
        found.update(job.received.found)
    return Values(
        found,
        [key for job in jobs for key in job.remaining()],
        _failures_of(jobs),
        [key for job in jobs for key in job.received.undecodable],
    )


def _statuses_of(jobs: Sequence[CommandJob]) -> Statuses:
    return Statuses(
        {key: status for job in jobs for key, status in job.statuses.items()},
        {key: text for job in jobs for key, text in job.refusals.items()},
        [key for job in jobs for key in job.remaining()],
        _failures_of(jobs),
    )

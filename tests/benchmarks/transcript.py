"""The 421 Campfire keys: by one call, from near and from far, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

from measurement import Contender, Row, at_most, faster, in_turns, medians
from raw_socket import RawSocket
from stage import ROOT, SERVERS, Stage, available

from django_safecache.memcached.batching import get_lines
from django_safecache.memcached.options import Options
from django_safecache.memcached.protocol import keys_of

VALUE_BYTES = 500
SEED = ROOT / "example_project" / "campfire" / "seed" / "keys.txt"
NETWORK = f"{SERVERS} servers at 5 ms round trip"


def campfire_data(mark: object = "") -> dict[str, str]:
    """A value of 500 bytes for each key; one character of it is not ASCII."""
    keys = SEED.read_text().split()
    return {
        key: f"{mark}é{key}".ljust(VALUE_BYTES - 1, "v")[: VALUE_BYTES - 1]
        for key in keys
    }


def equals(expected: object, found: object) -> None:
    assert found == expected, "a wrong answer: nothing here can be compared"


def reader(name: str, cache: Any, data: dict[str, Any]) -> Contender:
    return Contender(name, partial(cache.get_many, list(data)), partial(equals, data))


def get_many(stage: Stage, rounds: int) -> Iterator[Row]:
    data = campfire_data()
    equals([], stage.cache("SafeCache").set_many(data))
    request, reply = wire(data)
    with RawSocket(stage.address("near")) as connection:
        raw = Contender(
            "raw socket",
            partial(connection.exchange, request, len(reply)),
            partial(equals, reply),
        )
        contenders = [reader(name, stage.cache(name), data) for name in available()]
        times = in_turns([*contenders, raw], rounds)
    figures = medians(times)
    limits = {"PyMemcacheCache": (12, 20), "PyLibMCCache": (2, 3)}
    yield Row(
        f"get_many of {len(data)} Campfire keys, {VALUE_BYTES}-byte str values, "
        "1 server",
        figures,
        [
            *(faster(figures, name, *limits[name]) for name in available()[1:]),
            at_most("raw socket", figures["SafeCache"] / figures["raw socket"], 4, 2.5),
        ],
        "The raw socket sends the bytes that SafeCache sends and receives the bytes of "
        "the reply into one buffer; it parses and decodes nothing. PyMemcacheCache and "
        "PyLibMCCache send one line, SafeCache lines of 1024 bytes.",
        rounds=rounds,
    )


def wire(data: dict[str, str]) -> tuple[bytes, bytes]:
    """SafeCache's request for `data` on one server, and memcached's whole reply."""
    options = Options()
    values = {f":1:{key}".encode(): value.encode() for key, value in data.items()}
    lines = get_lines(
        list(values), max_bytes=options.batch_max_bytes, max_keys=options.batch_max_keys
    )
    reply = bytearray()
    for line in lines:
        for key in keys_of(line):
            value = values[key]
            reply += b"VALUE %b 16 %d\r\n%b\r\n" % (key, len(value), value)
        reply += b"END\r\n"
    return b"".join(lines), bytes(reply)


def far_get_many(stage: Stage, rounds: int) -> Iterator[Row]:
    rounds = max(2, rounds // 2)
    data = campfire_data()
    contenders = [reader(name, stage.cache(name, "far"), data) for name in available()]
    for name in available():  # PyLibMCCache places keys on other servers
        equals([], stage.cache(name, "far").set_many(data))
    before = stage.round_trip()
    figures = medians(in_turns(contenders, rounds))
    round_trip = (before + stage.round_trip()) / 2
    ours = figures["SafeCache"]
    above = at_most(
        "one round trip",
        ours / round_trip,
        goal=3,
        measured=(ours - round_trip) * 1e3,
        unit="ms above it",
    )
    figures["one round trip"] = round_trip
    yield Row(
        f"get_many of {len(data)} Campfire keys, {NETWORK}",
        figures,
        [
            faster(figures, "PyMemcacheCache", 4),
            above,
            *(faster(figures, name) for name in available()[2:]),
        ],
        "A proxy process holds every byte back for 2.5 ms each way; the round trip is "
        "that of `version` through it. PyLibMCCache places keys differently.",
        rounds=rounds,
    )


def far_writes(stage: Stage, rounds: int) -> Iterator[Row]:
    caches = {name: stage.cache(name, "far") for name in available()[:2]}
    sets = [_setter(name, cache) for name, cache in caches.items()]
    yield _write_row("set_many", sets, max(2, rounds // 10), must=3)
    deletes = [_deleter(name, cache) for name, cache in caches.items()]
    yield _write_row("delete_many", deletes, max(2, rounds // 40), must=50)


def _write_row(
    work: str, contenders: list[Contender], rounds: int, *, must: float
) -> Row:
    figures = medians(in_turns(contenders, rounds))
    return Row(
        f"{work} of {len(campfire_data())} Campfire keys, {NETWORK}",
        figures,
        [faster(figures, "PyMemcacheCache", must)],
        "What was written is read back, untimed. Every command is acknowledged, also "
        "PyMemcacheCache's (default_noreply=False is Django's own setting).",
        rounds=rounds,
    )


def _setter(name: str, cache: Any) -> Contender:
    """Stores other values each time."""
    turns = count()
    data: dict[str, str] = {}

    def check(failed: list[str]) -> None:
        equals([], failed)
        equals(data, cache.get_many(list(data)))

    return Contender(
        name,
        lambda: cache.set_many(data),
        check,
        prepare=lambda: data.update(campfire_data(f"{name} {next(turns)} ")),
    )


def _deleter(name: str, cache: Any) -> Contender:
    """Deletes keys that are there."""
    data = campfire_data()
    keys = list(data)

    def prepare() -> None:
        equals([], cache.set_many(data))

    return Contender(
        name,
        lambda: cache.delete_many(keys),
        lambda _: equals({}, cache.get_many(keys)),
        prepare,
    )

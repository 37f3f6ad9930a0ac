"""More keys than a page has: pickled objects, and growth with the number of keys."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Any

import mmh3
from measurement import Contender, Row, at_most, faster, in_turns, medians
from stage import Stage, available
from transcript import equals, reader

DICTS = 5_000
LEAST = "unpickling and hashing alone"
SIZES = (100, 1_000, 10_000, 100_000)
SMALLEST_LINEAR = 1_000
"""Keys below which what a call costs as a whole is much of what a key costs."""
KEYS_TIMED = 10_000
"""Keys that are asked for before the clock is looked at, if need be by many calls."""
VALUE_BYTES = 100


def pickled(stage: Stage, rounds: int) -> Iterator[Row]:
    rounds = max(2, rounds // 10)
    data = {
        f"user:{n}": {"id": n, "name": f"User {n}", "staff": n % 7 == 0, "tags": [n, n]}
        for n in range(DICTS)
    }
    place = "three, patient"
    equals([], stage.cache("SafeCache", place).set_many(data))
    contenders = [
        reader(name, stage.cache(name, place), data) for name in available()[:2]
    ]
    figures = medians(in_turns([*contenders, _least(data)], rounds))
    yield Row(
        f"get_many of {DICTS:,} keys, pickled dicts, 3 servers",
        figures,
        [
            faster(figures, "PyMemcacheCache", 15, 25),
            at_most(LEAST, figures["SafeCache"] / figures[LEAST]),
        ],
        "The least: pickle.loads of each value, and mmh3.hash of each key three times. "
        "No network, no protocol, no dictionary.",
        rounds=rounds,
    )


def _least(data: dict[str, Any]) -> Contender:
    """What every client has to do that keeps the format and the placement."""
    keys = [key.encode() for key in data]
    values = [pickle.dumps(value, pickle.HIGHEST_PROTOCOL) for value in data.values()]

    def call() -> list[Any]:
        for _ in range(3):
            list(map(mmh3.hash, keys, repeat(0), repeat(False)))
        return list(map(pickle.loads, values))

    return Contender(LEAST, call, partial(equals, list(data.values())))


def growth(stage: Stage, rounds: int) -> Iterator[Row]:
    rounds = max(2, rounds // 10)
    cache = stage.cache("SafeCache", "near, patient")
    data = {f"growth:{n}": f"{n}".rjust(VALUE_BYTES, "v") for n in range(max(SIZES))}
    equals([], cache.set_many(data))
    contenders = [_sized(cache, data, size) for size in SIZES]
    figures = medians(in_turns(contenders, rounds))
    base = figures[f"{SMALLEST_LINEAR:,} keys"]
    yield Row(
        f"growth of get_many, {SIZES[0]} to {SIZES[-1]:,} keys, {VALUE_BYTES}-byte "
        "values: time per key",
        figures,
        [
            at_most(
                f"{SMALLEST_LINEAR:,} keys",
                figures[f"{size:,} keys"] / base,
                1.2,
                unit=f"x a key at {size:,} keys",
            )
            for size in SIZES
            if size > SMALLEST_LINEAR
        ],
        f"Figures are per key; the one at {SIZES[0]} keys carries the cost of a call.",
        rounds=rounds,
    )


def _sized(cache: Any, data: dict[str, str], size: int) -> Contender:
    wanted = dict(list(data.items())[:size])
    keys = list(wanted)
    calls = max(1, KEYS_TIMED // size)

    def call() -> Any:
        for _ in range(calls):
            found = cache.get_many(keys)
        return found

    return Contender(
        f"{size:,} keys", call, partial(equals, wanted), times=calls * size
    )

"""What a call costs besides its own time: counting it, and the server's memory."""

from __future__ import annotations

import errno
import os
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from measurement import Contender, Row, at_most, in_turns, medians
from raw_socket import RawSocket
from stage import PATIENT, Stage, memcached
from transcript import campfire_data, equals

from django_safecache.apps import SafeCacheConfig
from django_safecache.backend import SafeCache
from django_safecache.memcached.outcomes import Failure, Outcome, observers
from django_safecache.recording.key_groups import first_match
from django_safecache.recording.recorder import MAX_ASIDE, Recorder

MISSING = 100_000
STORM = 100_000
STORM_KEYS = 25_000
GROUPS = ("text_", "time", "paste", "enter", "kick", "upl", "a", "b", "c", "d")
"""Of Campfire's keys, which are of six kinds, and some that none is of."""
COPIES = 30
"""Of Campfire's keys, which are other ones when somebody has read a message."""
GETS = MAX_ASIDE
"""Gets between two looks at the clock: as many as are added up together."""


def recording(stage: Stage, rounds: int) -> Iterator[Row]:
    """The same calls with the recorder connected and disconnected."""
    cache, data = stage.cache("SafeCache"), campfire_data()
    equals([], cache.set_many(data))
    keys = list(data)
    yield _recording_row(
        f"recording, per get_many of {len(keys)}",
        partial(cache.get_many, keys),
        data,
        rounds * 5,
    )
    yield _recording_row(
        f"recording under {len(GROUPS)} key groups, per get_many of {len(keys)}",
        partial(cache.get_many, keys),
        data,
        rounds * 5,
        must=10,
        recorder=_grouping(),
    )
    copies = [{f"{key}{n}": data[key] for key in keys} for n in range(COPIES)]
    for copy in copies:
        equals([], cache.set_many(copy))
    others = cycle(list(copy) for copy in copies)
    yield _recording_row(
        f"the same of {len(keys)} other keys each time",
        lambda: list(cache.get_many(next(others)).values()),
        list(data.values()),
        rounds * 5,
        must=10,
        recorder=_grouping(),
    )
    key = keys[0]
    yield _recording_row(
        "recording, per get",
        lambda: [cache.get(key) for _ in range(GETS)],
        [data[key]] * GETS,
        max(rounds // 2, 1),
        calls=GETS,
    )


def _grouping(**options: Any) -> Recorder:
    groups = [(re.compile(f"^{name}"), name) for name in GROUPS]
    return Recorder(key_groups=first_match(groups), **options)


def _recording_row(
    name: str,
    call: Callable[[], Any],
    expected: object,
    rounds: int,
    calls: int = 1,
    must: float = 3,
    recorder: Recorder | None = None,
) -> Row:
    of_the_site = SafeCacheConfig.ingest.recorder
    recorder = recorder or of_the_site
    observers.disconnect(of_the_site)
    on, off = "SafeCache", "not recording"
    contender = partial(
        Contender, call=call, check=partial(equals, expected), times=calls
    )
    try:
        times = in_turns(
            [
                contender(on, prepare=lambda: observers.connect(recorder)),
                contender(off, prepare=lambda: observers.disconnect(recorder)),
            ],
            rounds,
            # What waiting for the server takes varies by more than what is measured.
            clock=time.thread_time,
        )
    finally:
        observers.disconnect(recorder)
        observers.connect(of_the_site)
    figures = medians(times)
    # Both were measured one after the other in each round: the difference of the two
    # is less disturbed than either.
    pairs = zip(times[on], times[off], strict=True)
    cost = statistics.median(recorded - without for recorded, without in pairs)
    ratio = 1 + cost / figures[off]
    if calls == 1:
        limit = {"must": must, "measured": (ratio - 1) * 100, "unit": "% more"}
    else:
        limit = {"must": 3, "measured": cost * 1e6, "unit": "us more"}
    return Row(
        name,
        figures,
        [at_most(off, ratio, **limit)],
        "CPU time of the calling thread; the cost is the median of the differences "
        "within a round.",
        rounds=rounds,
        more={"cost_microseconds": cost * 1e6},
    )


def dead(stage: Stage, rounds: int) -> Iterator[Row]:
    """What a page waits for servers that are all known to be dead."""
    data = campfire_data()
    cache = SafeCache(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], {})
    equals(list(data), sorted(cache.read_many(data).unavailable, key=list(data).index))
    call = partial(cache.get_many, list(data))
    figures = medians(
        in_turns([Contender("SafeCache", call, partial(equals, {}))], rounds)
    )
    yield Row(
        f"get_many of {len(data)} Campfire keys, 3 servers, every breaker open",
        figures,
        [at_most("", 0, 1, measured=figures["SafeCache"] * 1e3, unit="ms")],
        "Without a loader.",
        rounds=rounds,
    )


def storm(stage: Stage, rounds: int) -> Iterator[Row]:
    """What the recorder makes of 100,000 broken pipes, of one problem each."""
    del stage, rounds
    outcomes = _broken_pipes(1000)
    yield _storm_row("recording, per failure of a storm", outcomes, Recorder)
    yield _storm_row(
        f"the same under {len(GROUPS)} key groups, of {STORM_KEYS:,} keys",
        _broken_pipes(STORM_KEYS),
        _grouping,
    )
    tracemalloc.start()
    _storm(outcomes, Recorder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Row(
        f"recording {STORM:,} failures of a storm, memory at the most",
        {"SafeCache": peak},
        [at_most("", 0, 1, measured=peak / 1e6, unit="MB")],
        "What Python allocates for them, by tracemalloc.",
        unit="bytes",
    )


def _storm_row(
    name: str, outcomes: list[Outcome], make_recorder: Callable[..., Recorder]
) -> Row:
    seconds = statistics.median(_storm(outcomes, make_recorder) for _ in range(5))
    return Row(
        name,
        {"SafeCache": seconds},
        [at_most("", 0, 5, measured=seconds * 1e6, unit="us")],
        f"CPU time of {STORM:,} outcomes, each with a failure, one after another.",
        rounds=5,
    )


def _broken_pipes(keys: int) -> list[Outcome]:
    """A get of each key. As they come from sockets: equal, and not the same."""
    error = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    return [
        Outcome(
            alias="default",
            server="10.0.0.1:11211",
            operation="get",
            keys=[key := f"user:{number}"],
            lost=[key],
            unavailable=1,
            lines=1,
            bytes_sent=4096,
            duration=0.001,
            failures=(
                Failure(
                    kind="epipe",
                    server="10.0.0.1:11211",
                    phase="send",
                    exception="builtins.BrokenPipeError",
                    errno=error.errno,
                    text=str(error),
                    keys=1,
                    bytes_sent=4096,
                    bytes_received=0,
                    connection_age=1.0,
                ),
            ),
        )
        for number in range(keys)
    ]


def _storm(outcomes: list[Outcome], make_recorder: Callable[..., Recorder]) -> float:
    """Seconds of CPU time that a recorder takes for each of `STORM` outcomes."""
    recorder = make_recorder(account=lambda: "acme", release="1")
    started = time.thread_time()
    for _ in range(STORM // len(outcomes)):
        for outcome in outcomes:
            recorder.observe(outcome)
    taken = time.thread_time() - started
    counted = sum(totals.count for totals in recorder.snapshot().occurrences)
    equals(STORM, counted)
    return taken / STORM


def memory(stage: Stage, rounds: int) -> Iterator[Row]:
    """How much memcached grows by a get of keys that it has not, once."""
    keys = [f"missing:{n}" for n in range(MISSING)]
    if not Path("/proc/self/status").exists():
        return
    figures = {
        "SafeCache": _growth(stage.program, partial(_by_safecache, keys)),
        "one line": _growth(stage.program, partial(_by_one_line, keys)),
    }
    yield Row(
        f"growth of memcached's memory by {MISSING:,} missing keys",
        figures,
        [
            at_most(
                "one line",
                figures["SafeCache"] / figures["one line"],
                5,
                measured=figures["SafeCache"] / figures["one line"] * 100,
                unit="% of it",
            )
        ],
        "VmRSS of a fresh server each, before and after the one call.",
        unit="bytes",
    )


def _growth(program: str, ask: Callable[[str], None]) -> float:
    """Bytes of resident memory that a fresh memcached gains when it is asked."""
    with memcached(program) as address:
        before = _resident(address)
        ask(address)
        return float(_resident(address) - before)


def _resident(address: str) -> int:
    """Bytes of memory of the memcached there, which says its own process id."""
    with RawSocket(address) as connection:
        stats = connection.ask(b"stats\r\n", b"END\r\n")
    pid = int(re.search(rb"STAT pid (\d+)", stats)[1])
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def _by_safecache(keys: list[str], address: str) -> None:
    cache = SafeCache(address, {"OPTIONS": PATIENT})
    result = cache.read_many(keys)
    cache.disconnect_all()
    equals((keys, []), (result.missing, result.unavailable))


def _by_one_line(keys: list[str], address: str) -> None:
    line = b"get " + b" ".join(f":1:{key}".encode() for key in keys) + b"\r\n"
    with RawSocket(address) as connection:
        equals(b"END\r\n", connection.ask(line, b"END\r\n"))

"""How fast SafeCache is, beside Django's own backends, pymemcache and a raw socket.

    tox run -e bench [-- --only NAME] [--rounds N] [--json FILE]

Real memcacheds on loopback, everything in one process and in turns, medians. Nothing
here passes or fails a test by time: see the table, and the verdicts in it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import costs
import many_keys
import one_key
import transcript
from measurement import Row
from report import machine, markdown
from stage import Stage, stage

BENCHMARKS: dict[str, Callable[[Stage, int], Iterator[Row]]] = {
    "get_many": transcript.get_many,
    "far_get_many": transcript.far_get_many,
    "pickled": many_keys.pickled,
    "far_writes": transcript.far_writes,
    "one_key": one_key.one_key,
    "commands": one_key.commands,
    "memory": costs.memory,
    "dead": costs.dead,
    "recording": costs.recording,
    "storm": costs.storm,
    "growth": many_keys.growth,
}
ROUNDS = 200


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be 1 at least")
    # So that what was started is ended also when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with stage() as ready:
        about = machine(ready.program)
        print(", ".join(f"{name} {value}" for name, value in about.items()), end="\n\n")
        rows = list(_measured(ready, options.only or list(BENCHMARKS), options.rounds))
    print("\n".join(markdown(rows)))
    if options.json:
        result = {
            "machine": about,
            "rounds": options.rounds,
            "rows": [row.as_json() for row in rows],
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _measured(ready: Stage, names: Sequence[str], rounds: int) -> Iterator[Row]:
    for name in names:
        print(f"measuring {name}...", file=sys.stderr, flush=True)
        yield from BENCHMARKS[name](ready, rounds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        choices=BENCHMARKS,
        metavar="NAME",
        help=f"one of {', '.join(BENCHMARKS)}; may be given again",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help="of the fast work; slow work does fewer (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


if __name__ == "__main__":
    main()

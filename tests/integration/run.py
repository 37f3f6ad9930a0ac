"""Campfire behind a web server while memcached fails in every way.

    python tests/integration/run.py [gunicorn|uvicorn] [--seconds S] [--json FILE]

A real memcached behind a proxy that breaks connections, the web server, one process
that edits messages and one that reads the transcript: all on loopback, all ended with
this. Prints what happened in each phase, and which invariants held; the exit code is 1
when one did not. `--seconds` is how long each phase takes; SAFECACHE_PHASE_SECONDS
says the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

FOLDER = Path(__file__).resolve().parent
EXAMPLE = FOLDER.parents[1] / "example_project"
sys.path[:0] = [str(FOLDER), str(EXAMPLE)]

import django
import fault_report
import journal
from cache_server import end, free_port
from fault_proxy import FaultProxy
from load import CLIENTS, HANG, Page, Sighting, get
from schedule import REHEARSED, BreakableMemcached, Phase, Scene, phases
from tally import counted
from verdicts import Run, Span, Verdict, verdicts
from web_servers import SERVERS, THREADS, Resources, WebServer, resources

from django_safecache.recording import histogram

if TYPE_CHECKING:  # it needs Django set up
    from django_safecache.reports import Totals

PHASE_SECONDS = 2.5
PAGES_A_SECOND = 8
EDITS_A_SECOND = 4
END_SECONDS = HANG + 10
COMPLAINTS = ("Traceback", "Exception ignored", "Warning", "CRITICAL", "observer_fail")


def main() -> int:
    options = _parser().parse_args()
    # So that what was started is ended also when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = shutil.which("memcached")
    if program is None:
        print("memcached is not on PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="safecache-integration-") as folder:
        run = _run(program, options.server, Path(folder), options.seconds)
    judged = verdicts(run)
    print(f"{options.server}, {len(run.pages)} pages, phases of {options.seconds} s")
    print("\n".join(fault_report.lines(run, judged)))
    if options.json:
        options.json.write_text(json.dumps(_as_json(run, judged), indent=2) + "\n")
    return 0 if all(verdict.held for verdict in judged) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", nargs="?", choices=SERVERS, default="gunicorn")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float(os.environ.get("SAFECACHE_PHASE_SECONDS", PHASE_SECONDS)),
        help="of each phase (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    return parser


def _run(program: str, server: str, folder: Path, seconds: float) -> Run:
    with ExitStack() as stack:
        memcached = BreakableMemcached(program, free_port())
        memcached.start()
        stack.callback(memcached.stop)
        proxy = stack.enter_context(FaultProxy(memcached.address))
        environment = _environment(folder, proxy.address)
        _set_up(environment)
        web = SERVERS[server](folder, environment)
        web.start()
        stack.callback(web.stop)
        play = _Play(Scene(proxy, memcached), web, folder, environment, seconds)
        return play.run()


class _Play:
    """A run, once everything it needs is there."""

    def __init__(
        self,
        scene: Scene,
        web: WebServer,
        folder: Path,
        environment: dict[str, str],
        seconds: float,
    ) -> None:
        self._scene = scene
        self._web = web
        self._folder = folder
        self._environment = environment
        self._seconds = seconds
        self._journal = folder / "journal"
        self._journal.touch()
        self._spans: list[Span] = []
        self._before: list[Resources] = []
        self._after: list[Resources] = []

    def run(self) -> Run:
        result = self._folder / "pages.json"
        readers = [self._journal, result, PAGES_A_SECOND, *self._web.urls]
        writer = [self._journal, EDITS_A_SECOND]
        exits: dict[str, int] = {}
        warm_up = self._warm_up()
        with (
            self._process("load.py", readers, exits),
            self._process("writer.py", writer, exits),
        ):
            self._pass_through_phases()
        exits[self._web.name] = self._web.stop()
        seen = json.loads(result.read_text())
        return Run(
            spans=self._spans,
            pages=[Page(**page) for page in seen["pages"]],
            warm_up=warm_up,
            sightings=[Sighting(**each) for each in seen["sightings"]],
            edits=journal.read(self._journal),
            tally=counted(self._folder),
            stored=_stored(),
            before=self._before,
            after=self._after,
            max_cache_sockets=THREADS if self._web.workers > 1 else CLIENTS,
            exit_codes=exits,
            complaints=self._complaints(),
        )

    def _warm_up(self) -> int:
        """Fill the cache, and have most workers load what a page needs."""
        urls = self._web.urls * 2 * self._web.workers
        for url in urls:
            get(url)
        return len(urls)

    def _pass_through_phases(self) -> None:
        before = _totals()
        for number, phase in enumerate(phases(), start=1):
            begin = time.monotonic()
            phase.begin(self._scene)
            time.sleep(max(begin + self._seconds - time.monotonic(), 0.0))
            after = _totals()
            self._spans.append(_span(phase, begin, before, after))
            before = after
            if number == REHEARSED:
                self._before = self._resources()
        self._after = self._resources()

    def _resources(self) -> list[Resources]:
        port = int(self._scene.proxy.address.partition(":")[2])
        return [resources(pid, port) for pid in self._web.serving()]

    @contextmanager
    def _process(
        self, script: str, arguments: Sequence[object], exits: dict[str, int]
    ) -> Iterator[None]:
        """Until the block ends, and then until it has done what it was at."""
        with (self._folder / f"{script}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, FOLDER / script, *map(str, arguments)],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield
            process.stdin.close()
            exits[script] = process.wait(END_SECONDS)
        finally:
            process.stdin.close()
            end(process)

    def _complaints(self) -> list[str]:
        return [
            f"{log.name}: {line}"
            for log in sorted(self._folder.glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if any(word in line for word in COMPLAINTS)
        ]


def _environment(folder: Path, cache: str) -> dict[str, str]:
    known = os.environ.get("PYTHONPATH")
    paths = [str(FOLDER), str(EXAMPLE), *([known] if known else [])]
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "campfire_settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "CAMPFIRE_VAR": str(folder),
        "CAMPFIRE_DATABASE": str(folder / "campfire.sqlite3"),
        "CAMPFIRE_MEMCACHED": cache,
    }


def _set_up(environment: dict[str, str]) -> None:
    """The room in its database, for this process and for those it starts."""
    os.environ.update(environment)
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    call_command("load_room", stdout=StringIO())
    connections.close_all()


def _totals() -> Totals:
    from django.db import connections

    from django_safecache import reports
    from django_safecache.reports import Period

    try:
        return reports.totals(Period.last(hours=24)) or reports.Totals()
    finally:
        connections.close_all()


def _span(phase: Phase, begin: float, before: Totals, after: Totals) -> Span:
    """With what was stored between the two totals."""
    durations = [
        now - then for now, then in zip(after.durations, before.durations, strict=True)
    ]
    return Span(
        phase.name,
        begin,
        phase.empties,
        dict(Counter(after.failures) - Counter(before.failures)),
        histogram.percentile(durations, 0.99),
    )


def _stored() -> Counter[str]:
    totals = _totals()
    names = ("hits", "misses", "unavailable", "loaded", "lines", "retries", "splits")
    return Counter({name: getattr(totals, name) for name in names})


def _as_json(run: Run, judged: Sequence[Verdict]) -> dict[str, object]:
    return {
        "verdicts": [asdict(verdict) for verdict in judged],
        "report": list(fault_report.lines(run, judged)),
        "spans": [asdict(span) for span in run.spans],
        "pages": [asdict(page) for page in run.pages],
        "stale": [
            {"edit": asdict(each.edit), "began": each.began} for each in run.staleness
        ],
        "tally": run.tally,
        "stored": run.stored,
    }


if __name__ == "__main__":
    sys.exit(main())

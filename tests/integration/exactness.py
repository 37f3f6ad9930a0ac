"""Whether the tables have exactly what a site's cache was asked, whatever happens.

    python tests/integration/exactness.py [sqlite|postgresql|mariadb] [SCENARIO]
        [--seconds S] [--outage S] [--interval S] [--flush thread|request]
        [--all-keys] [--json FILE]

A real database and memcached, gunicorn with 4 workers of 4 threads, a pool of forked
processes, and clients that count what they are given: all on loopback, all ended with
this. Prints what was expected and what was stored; the exit code is 1 where they
differ. The scenarios:

recycled          workers and processes of the pool are replaced all the time
memcached-killed  and memcached is killed in the middle, and started again
rolled-back       and every third request writes to the database, fails, and is undone
database-stopped  the database is stopped in the middle, for --outage seconds
everything        all of these at once
worker-killed     a worker is killed with SIGKILL in the middle
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PATHS = [FOLDER, FOLDER.parent, FOLDER.parents[1] / "example_project"]
sys.path[:0] = map(str, PATHS)

import django
from cache_server import end, free_port
from exact_load import THREADS, Clients, Gunicorn
from exact_report import FIRST_TASK, Measured, as_json, judged, lines
from real_databases import DATABASES, Database, running, without_server
from schedule import BreakableMemcached
from told_database import ENVIRONMENT_NAME

POOL = 4
TASKS_A_SECOND = 30
# Few enough that each worker is replaced several times in a few seconds.
MAX_REQUESTS = 40
MAX_TASKS = 25
NEVER = 10**6
END_SECONDS = 120
LAST_TASK = 2 * FIRST_TASK
NEXT_PROCESS = """
import sys, django
django.setup()
import exact_site
exact_site.watch()
exact_site.ask(int(sys.argv[1]))
"""
COMPLAINTS = (
    "Traceback",
    "Error",
    "Exception ignored",
    "observer_failed",
    "CRITICAL",
)


@dataclass(frozen=True)
class Scenario:
    recycled: bool = True
    memcached_killed: bool = False
    rolled_back: bool = False
    database_stopped: bool = False
    worker_killed: bool = False


SCENARIOS = {
    "recycled": Scenario(),
    "memcached-killed": Scenario(memcached_killed=True),
    "rolled-back": Scenario(rolled_back=True),
    "database-stopped": Scenario(database_stopped=True),
    "everything": Scenario(
        memcached_killed=True, rolled_back=True, database_stopped=True
    ),
    "worker-killed": Scenario(recycled=False, worker_killed=True),
}


def main() -> int:
    options = _parser().parse_args()
    # So that what was started is ended also when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = shutil.which("memcached")
    if program is None:
        print("memcached is not on PATH", file=sys.stderr)
        return 2
    with running(options.database) as database:
        if database is None:
            return without_server(options.database)
        with tempfile.TemporaryDirectory(prefix="safecache-exactness-") as folder:
            run = _Run(options, database, program, Path(folder))
            measured = run.measure()
    verdicts = judged(measured)
    print(f"{options.database}, {options.scenario}")
    print("\n".join(lines(measured, verdicts, all_keys=options.all_keys)))
    if options.json:
        options.json.write_text(json.dumps(as_json(measured, verdicts)) + "\n")
    return 0 if all(verdict.held for verdict in verdicts) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("database", nargs="?", choices=DATABASES, default="sqlite")
    add("scenario", nargs="?", choices=SCENARIOS, default="everything")
    add("--seconds", type=float, default=8, help="of load, without the outage")
    add("--outage", type=float, default=120, help="seconds the database is stopped")
    add("--interval", type=float, default=1, help="seconds between two flushes")
    add("--flush", choices=["thread", "request"], default="thread")
    add("--all-keys", action="store_true", help="a line for each, not only the sum")
    add("--json", type=Path, help="write what was seen to this file")
    return parser


class _Run:
    """One scenario, with the database that is running."""

    def __init__(
        self,
        options: argparse.Namespace,
        database: Database,
        program: str,
        folder: Path,
    ) -> None:
        self._options = options
        self._scenario = SCENARIOS[options.scenario]
        self._database = database
        self._folder = folder
        self._memcached = BreakableMemcached(program, free_port())
        self._environment = self._make_environment()
        requests = MAX_REQUESTS if self._scenario.recycled else NEVER
        self._web = Gunicorn(folder, self._environment, requests)
        self._clients = Clients(
            self._web.address, rolled_back=self._scenario.rolled_back
        )
        self._killed: tuple[int, float] | None = None
        self._exit_codes: dict[str, int] = {}
        self._left = 0

    def measure(self) -> Measured:
        os.environ.update(self._environment)
        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        connections.close_all()
        with ExitStack() as stack:
            self._memcached.start()
            stack.callback(self._memcached.stop)
            self._web.start()
            stack.callback(self._web.stop)
            with self._pool(), self._clients.asking():
                self._happen()
            self._exit_codes["gunicorn"] = self._web.stop()
            self._left = len(self._files_left())
            if self._left:
                # The next process of the site, as there always is one.
                self._next_process()
        return self._measured()

    def _happen(self) -> None:
        """What the scenario is about, one thing after the other."""
        began = time.monotonic()
        for moment, action in self._events():
            time.sleep(max(began + moment - time.monotonic(), 0.0))
            action()

    def _events(self) -> list[tuple[float, Callable[[], None]]]:
        seconds, outage = self._options.seconds, self._options.outage
        scenario = self._scenario
        events: list[tuple[float, Callable[[], None]]] = []
        if scenario.database_stopped:
            events.append((0.3 * seconds, self._database.stop))
            events.append((0.3 * seconds + outage, self._database.start))
        else:
            outage = 0.0
        if scenario.memcached_killed:
            events.append((0.4 * seconds, self._memcached.kill))
            events.append((0.6 * seconds, self._memcached.start))
        if scenario.worker_killed:
            events.append((0.7 * seconds, self._kill_a_worker))
        events.append((seconds + outage, lambda: None))
        return sorted(events, key=lambda event: event[0])

    def _kill_a_worker(self) -> None:
        pid = self._worker_that_reported()
        os.kill(pid, signal.SIGKILL)
        self._killed = (pid, time.time())

    def _files_left(self) -> list[Path]:
        return list(self._folder.glob("django_safecache-*/*.json"))

    def _next_process(self) -> None:
        """Give what is left to processes that use the cache once, and end."""
        for number in count(LAST_TASK):
            before = len(self._files_left())
            subprocess.run(
                [sys.executable, "-c", NEXT_PROCESS, str(number)],
                env=self._environment,
                cwd=self._folder,
                check=True,
            )
            if not 0 < len(self._files_left()) < before:
                return

    def _worker_that_reported(self) -> int:
        """What one loses that never did cannot be told."""
        from django.db import connections
        from exact_tables import reporters

        give_up = time.monotonic() + END_SECONDS
        while time.monotonic() < give_up:
            reported = {each.pid for each in reporters()}
            connections.close_all()
            if found := reported.intersection(self._web.serving()):
                # So that it has counted more since then.
                time.sleep(self._options.interval / 2)
                return found.pop()
            time.sleep(0.1)
        raise RuntimeError("no worker has stored anything")

    @contextmanager
    def _pool(self) -> Iterator[None]:
        tasks = MAX_TASKS if self._scenario.recycled else NEVER
        arguments = map(str, (POOL, tasks, TASKS_A_SECOND, FIRST_TASK))
        with (self._folder / "pool.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, FOLDER / "exact_pool.py", *arguments],
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
            self._exit_codes["pool"] = process.wait(END_SECONDS)
        finally:
            process.stdin.close()
            end(process)

    def _measured(self) -> Measured:
        import exact_tables
        from django.contrib.auth.models import Group
        from django.db import connections

        try:
            return Measured(
                given=self._clients.given,
                unanswered=self._clients.unanswered,
                asked=exact_tables.asked(self._folder),
                told=exact_tables.told(self._folder),
                reporters=exact_tables.reporters(),
                not_rolled_back=Group.objects.count(),
                killed=self._killed,
                left=self._left,
                in_flight=THREADS,
                interval=self._options.interval,
                exit_codes=self._exit_codes,
                complaints=self._complaints(),
            )
        finally:
            connections.close_all()

    def _complaints(self) -> list[str]:
        return [
            f"{log.name}: {line}"
            for log in sorted(self._folder.glob("*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if any(word in line for word in COMPLAINTS)
            # Said once a minute by each process that cannot store.
            and not (self._scenario.database_stopped and "flush_failed" in line)
        ]

    def _make_environment(self) -> dict[str, str]:
        known = os.environ.get("PYTHONPATH")
        paths = [*map(str, PATHS), *([known] if known else [])]
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "exact_settings",
            "PYTHONPATH": os.pathsep.join(paths),
            ENVIRONMENT_NAME: json.dumps(self._database.settings()),
            "EXACT_MEMCACHED": self._memcached.address,
            # Where totals are left that could not be stored.
            "TMPDIR": str(self._folder),
            "EXACT_FOLDER": str(self._folder),
            "EXACT_FLUSH": self._options.flush,
            "EXACT_INTERVAL": str(self._options.interval),
        }


if __name__ == "__main__":
    sys.exit(main())

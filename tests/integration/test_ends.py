"""However a process ends in order, what it counted last is in the tables.

The interval is an hour: nothing is stored but at the end. Each test counts with the
server's own processes, ends them as their supervisor does, and compares.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cache_server import free_port

FOLDER = Path(__file__).resolve().parent
EXAMPLE = FOLDER.parents[1] / "example_project"
PATIENCE = 60
REQUESTS = 40


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """A site whose database has the tables, to be copied."""
    site = Site(tmp_path_factory.mktemp("migrated"))
    site.manage("migrate", "--verbosity=0")
    return site


@pytest.fixture
def site(migrated, tmp_path):
    shutil.copy(migrated.database, tmp_path)
    return Site(tmp_path)


class Site:
    """Its database, and the processes that are started for it."""

    def __init__(self, folder):
        self.folder = folder
        self.database = folder / "db.sqlite3"
        self.queue = folder / "queue"
        (self.queue / "control").mkdir(parents=True)
        self.log = folder / "log"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "ends_settings",
            "PYTHONPATH": os.pathsep.join(
                [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            # A fork of a process with threads is what some of these servers do.
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(folder),
            "ENDS_DATABASE": str(self.database),
            "ENDS_QUEUE": str(self.queue),
        }

    def manage(self, *arguments):
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    @contextmanager
    def running(self, *command, port=None):
        """Until the block ends, which is to end it."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: port is None or process.poll() or listens(port))
            yield process
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            print(self.log.read_text(errors="replace"))

    def stored(self):
        """Hits, and writers that have not said that they ended."""
        with closing(sqlite3.connect(self.database)) as connection:
            ask = connection.execute
            (hits,) = ask(
                "SELECT COALESCE(SUM(hits), 0) FROM django_safecache_cachedigest"
            ).fetchone()
            (alive,) = ask(
                "SELECT COUNT(*) FROM django_safecache_writer WHERE ended IS NULL"
            ).fetchone()
        return hits, alive

    def problems(self):
        """Class, message and how often, by message."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(
                "SELECT exception, message, SUM(count) FROM django_safecache_problem p "
                "JOIN django_safecache_problemcount c ON c.problem_id = p.id "
                "GROUP BY p.id ORDER BY message"
            ).fetchall()


def ask(port, times):
    """How often each process answered."""
    pids = Counter()
    while pids.total() < times:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection):
            try:
                connection.request("GET", "/", headers={"Connection": "close"})
                pids[int(connection.getresponse().read())] += 1
            except ConnectionRefusedError:
                # A development server that starts again.
                time.sleep(0.05)
    return pids


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition):
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def program(name):
    """Where it is. Without it the test is skipped, and in CI failed."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have {name}")
        pytest.skip(f"{name} is not installed")
    return found


class TestGunicorn:
    @contextmanager
    def serving(self, site, *options):
        port = free_port()
        command = [program("gunicorn"), "ends_wsgi", f"--bind=127.0.0.1:{port}"]
        command += ["--workers=2", "--no-control-socket", *options]
        with site.running(*command, port=port) as process:
            yield port, process

    @pytest.mark.parametrize(
        ("kind", "number"),
        [
            ("sync", signal.SIGTERM),
            ("gthread", signal.SIGTERM),
            ("gthread", signal.SIGQUIT),
        ],
    )
    def test_ended_by_a_signal(self, site, kind, number):
        options = [f"--worker-class={kind}", "--threads=4"]
        with self.serving(site, *options) as (port, process):
            ask(port, REQUESTS)
            process.send_signal(number)
        assert site.stored() == (REQUESTS, 0)

    def test_reloaded(self, site):
        with self.serving(site, "--threads=2") as (port, process):
            before = ask(port, REQUESTS)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: not any(alive(pid) for pid in before))
            ask(port, REQUESTS)
            process.terminate()
        assert site.stored() == (2 * REQUESTS, 0)

    def test_workers_replaced_after_so_many_requests(self, site):
        with self.serving(site, "--max-requests=7") as (port, process):
            assert len(ask(port, REQUESTS)) > 2
            process.terminate()
        assert site.stored() == (REQUESTS, 0)

    def test_at_the_end_of_requests(self, site):
        site.environment["ENDS_FLUSH"] = "request"
        with self.serving(site, "--threads=2") as (port, process):
            ask(port, REQUESTS)
            process.terminate()
        assert site.stored() == (REQUESTS, 0)


class TestUWSGI:
    @pytest.mark.parametrize(
        ("options", "flush"),
        [
            ((), "thread"),
            ((), "request"),
            (("--enable-threads",), "thread"),
            (("--threads=2",), "thread"),
            (("--lazy-apps",), "thread"),
        ],
    )
    def test_ended(self, site, options, flush):
        site.environment["ENDS_FLUSH"] = flush
        with self.serving(site, *options) as (port, process):
            answered = ask(port, REQUESTS)
            while len(answered) < 2:
                # A worker that is still loading the site is not told to end.
                answered += ask(port, 1)
            process.terminate()
        assert site.stored() == (answered.total(), 0)

    @pytest.mark.parametrize("options", [(), ("--enable-threads",)])
    def test_workers_replaced_after_so_many_requests(self, site, options):
        options = [*options, "--max-requests=7", "--min-worker-lifetime=0"]
        with self.serving(site, *options) as (port, process):
            answered = ask(port, REQUESTS)
            assert len(answered) > 2
            # A worker that is told to end while it ends does so at once.
            wait_until(lambda: not any(alive(p) for p, n in answered.items() if n >= 7))
            process.terminate()
        assert site.stored() == (REQUESTS, 0)

    @pytest.mark.parametrize("options", [(), ("--enable-threads",)])
    def test_reloaded(self, site, options):
        with self.serving(site, *options) as (port, process):
            before = ask(port, REQUESTS)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: not any(alive(pid) for pid in before))
            ask(port, REQUESTS)
            process.terminate()
        assert site.stored() == (2 * REQUESTS, 0)

    @contextmanager
    def serving(self, site, *options):
        port = free_port()
        command = [program("uwsgi"), f"--http-socket=127.0.0.1:{port}", "--master"]
        command += ["--module=ends_wsgi", "--processes=2", "--need-app"]
        # By default SIGTERM reloads it, and what `--die-on-term` ends in the middle of
        # a request, or before it knows that this is over, runs nothing of Python's.
        command += ["--hook-master-start=unix_signal:15 gracefully_kill_them_all"]
        command += ["--disable-logging", *options]
        with site.running(*command, port=port) as process:
            yield port, process


class TestUvicorn:
    @pytest.mark.parametrize("options", [(), ("--workers=2",)])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ended_by_a_signal(self, site, options, number):
        port = free_port()
        command = [program("uvicorn"), "ends_asgi:application", f"--port={port}"]
        with site.running(*command, *options, port=port) as process:
            ask(port, REQUESTS)
            process.send_signal(number)
        assert site.stored() == (REQUESTS, 0)


class TestCelery:
    @pytest.mark.parametrize(
        ("pool", "flush"),
        [
            ("prefork", "thread"),
            ("prefork", "request"),
            ("threads", "thread"),
            ("solo", "thread"),
        ],
    )
    def test_workers_replaced_and_ended(self, site, pool, flush):
        site.environment["ENDS_FLUSH"] = flush
        self.work(site, ["hit"] * REQUESTS, pool)
        assert site.stored() == (REQUESTS, 0)

    @pytest.mark.parametrize("pool", ["prefork", "solo"])
    @pytest.mark.parametrize("first", ["celery", "django"])
    def test_what_tasks_fail_with_is_counted_whichever_is_loaded_first(
        self, site, pool, first
    ):
        """Though a worker takes the handlers of the root logger away."""
        names = ["fail", "fail", "tell", "fail_as_expected", "fail_once"]
        names += ["ignore", "reject"]
        self.work(site, names, pool, first)
        assert site.problems() == [
            ("builtins.LookupError", "nobody catches it", 2),
            ("builtins.LookupError", "the task tells of it", 1),
        ]

    def work(self, site, names, pool, first="celery"):
        """Have a worker with two processes or threads do the tasks of these names."""
        program("celery")
        done = site.folder / "done"
        done.mkdir()
        code = (
            "import sys, ends_celery as tasks\n"
            "for n, name in enumerate(sys.argv[1:]):\n"
            f"    getattr(tasks, name).delay(f'{done}/{{n}}')"
        )
        send = [sys.executable, "-c", code, *names]
        subprocess.run(send, env=site.environment, check=True)
        command = [sys.executable, *STARTED_BY[first], "worker"]
        command += [f"--pool={pool}", "--concurrency=2", "--max-tasks-per-child=7"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with site.running(*command) as process:
            wait_until(lambda: len(list(done.iterdir())) == len(names))
            process.terminate()


class TestWhatCeleryTakesAway:
    """All handlers of three loggers, when it sets its logging up."""

    CONFIGURE = """
import json, logging.config, sys
from celery import Celery

def configure(**loggers):
    path = "django_safecache.recording.log_handler.DigestHandler"
    classes = {"console": "logging.StreamHandler", "digest": path}
    handlers = {name: {"class": path} for name, path in classes.items()}
    told = {"version": 1, "disable_existing_loggers": False, "handlers": handlers}
    for name in loggers:
        loggers[name] = {"handlers": ["console", "digest"]}
    logging.config.dictConfig({**told, "loggers": loggers})

app = Celery("site")
"""
    TELL = """
found = {}
for name in ("root", "celery", "celery.task", "shop"):
    for handler in logging.getLogger(name).handlers:
        if type(handler).__name__ == "DigestHandler":
            found[name] = found.get(name, 0) + 1
print(json.dumps(found))
"""

    def which(self, code, then="app.log.setup_logging_subsystem()"):
        """The loggers that have a handler of ours then, and how many."""
        program("celery")
        code = "\n".join([self.CONFIGURE, code, then, self.TELL])
        command = [sys.executable, "-c", code]
        environment = {**os.environ}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)

    def test_the_one_of_the_root_logger_comes_back_and_gets_to_tasks(self):
        assert self.which("configure(root={})") == {"root": 1, "celery.task": 1}

    def test_it_comes_back_once_however_often_the_site_configures_its_logging(self):
        code = "for _ in range(3):\n    configure(root={})"
        assert self.which(code) == {"root": 1, "celery.task": 1}

    def test_one_of_another_logger_stays_there_alone(self):
        assert self.which("configure(shop={})") == {"shop": 1}

    def test_one_that_the_site_has_taken_away_stays_away(self):
        code = "configure(root={}); logging.getLogger().handlers.clear()"
        assert self.which(code) == {}

    def test_one_of_celerys_own_logger_comes_back_to_that(self):
        assert self.which("configure(celery={})") == {"celery": 1, "celery.task": 1}

    def test_where_celery_leaves_the_root_logger_alone_tasks_get_to_it_too(self):
        code = "app.conf.worker_hijack_root_logger = False; configure(root={})"
        assert self.which(code) == {"root": 1, "celery.task": 1}

    def test_a_worker_that_sets_it_up_again_gives_it_back_again(self):
        """As the processes of one do that have log files of their own."""
        again = "app.log.setup_logging_subsystem(); app.log.already_setup = False"
        code = f"configure(root={{}}); {again}"
        assert self.which(code) == {"root": 1, "celery.task": 1}

    def test_a_list_that_the_site_itself_has_replaced_is_no_memory(self):
        code = "configure(root={}); logging.getLogger().handlers = []"
        worker = "app.Worker(pool='solo')"
        assert self.which(code, worker) == {}


STARTED_BY = {
    "celery": ["-m", "celery", "-A", "ends_celery"],
    "django": [
        "-c",
        "import django, sys; django.setup()\n"
        "import ends_celery; ends_celery.app.worker_main(sys.argv[1:])",
    ],
}


class TestCommands:
    def test_one_that_returns(self, site):
        assert site.manage("count_hits", "3").returncode == 0
        assert site.stored() == (3, 0)

    @pytest.mark.parametrize("code", [0, 3])
    def test_one_that_exits(self, site, code):
        assert site.manage("count_hits", "3", f"--code={code}").returncode == code
        assert site.stored() == (3, 0)


class TestRunserver:
    def test_reloaded_and_ended(self, site):
        """A process that watches starts another, and that anew when a file changes."""
        module = site.folder / "watched.py"
        module.touch()
        site.environment["PYTHONPATH"] += f"{os.pathsep}{site.folder}"
        site.environment["ENDS_WATCHED"] = "watched"
        port = free_port()
        command = [sys.executable, "-m", "django", "runserver", f"127.0.0.1:{port}"]
        with site.running(*command) as process:
            (first,) = ask(port, REQUESTS)
            moments = itertools.count(time.time() + 10)

            def changed_and_ended():
                """What changes before it is first looked at is not seen to change."""
                os.utime(module, (next(moments),) * 2)
                return not alive(first)

            wait_until(changed_and_ended)
            (second,) = ask(port, REQUESTS)
            os.kill(second, signal.SIGTERM)
        assert process.returncode == 0
        assert site.stored() == (2 * REQUESTS, 0)


def alive(pid):
    """Whether any thread of it is: the last one to end closes what it listens on."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            (state, *_) = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            return True
    return False

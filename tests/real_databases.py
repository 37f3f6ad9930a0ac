"""Database servers of a test's own: on loopback, in a folder that goes with them.

    python tests/real_databases.py postgresql|mariadb [OPTIONS OF PYTEST]

starts one, runs the tests of what is stored with it, and ends it. Where a server is not
installed nothing is run, which is a failure when `CI` is set.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "example_project"))

from cache_server import free_port
from told_database import ENVIRONMENT_NAME

START_SECONDS = 60.0
END_SECONDS = 60.0
NAME = "safecache"
# What does not write to the database itself, or brings a SQLite of its own, is the same
# with every server.
TESTS = (
    "test_ingest*",
    "test_models",
    "test_reports*",
    "test_rollup*",
    "test_storage*",
)
TEST_FOLDERS = ("digest", "ingest", "management", "reports", "storage")
NOT_THERE = ("--ignore-glob=*_processes.py", "-k", "not Processes")
ENDED_WITHOUT_SERVER = 77
"""The exit code of a script whose server is not installed; not in CI, where that is a
failure."""


class DatabaseServer:
    """A server that can be stopped, started and paused; its data stay until `close`.

    None of it is durable: what a test needs is what a running server says.
    """

    kind: str
    # Asks it to end now, whoever is connected.
    end_signal = signal.SIGTERM

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix=f"safecache-{self.kind}-"))
        self._log = self._folder / "log"
        self._data = self._folder / "data"
        self._owner = _unprivileged_user()
        if self._owner:
            shutil.chown(self._folder, self._owner)
        self._call(*self._set_up())

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                # Of the test's own it may not be allowed to use.
                env={**os.environ, "TMPDIR": str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._identity,
            )
        give_up = time.monotonic() + START_SECONDS
        while self._ask("SELECT 1").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.kind} did not start:\n{self._told()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """As when it is restarted: who is connected is disconnected."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.end_signal)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let it accept connections and answer nothing, also to those it has."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def execute(self, statement: str) -> None:
        """Run `statement` as the server's administrator."""
        done = self._ask(statement)
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr}")

    def settings(self, database: str = NAME, **changes: object) -> dict[str, object]:
        """An entry of Django's ``DATABASES``."""
        raise NotImplementedError

    def _set_up(self) -> Sequence[object]:
        """The command that makes the folder of the data."""
        raise NotImplementedError

    def _command(self) -> Sequence[object]:
        raise NotImplementedError

    def _client(self, statement: str) -> Sequence[object]:
        raise NotImplementedError

    def _ask(self, statement: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, self._client(statement))),
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )

    def _call(self, *command: object) -> None:
        done = subprocess.run(
            list(map(str, command)),
            cwd=self._folder,
            env={**os.environ, "TMPDIR": str(self._folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self._identity,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")

    @property
    def _identity(self) -> dict[str, object]:
        """Neither server runs as root."""
        if not self._owner:
            return {}
        group = pwd.getpwnam(self._owner).pw_gid
        return {"user": self._owner, "group": group, "extra_groups": []}

    def _signal(self, number: signal.Signals) -> None:
        # PostgreSQL has a process for each connection, in sessions of their own.
        if self._process is not None:
            for pid in (self._process.pid, *_children(self._process.pid)):
                # A connection may have ended since.
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _told(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class PostgreSQL(DatabaseServer):
    kind = "postgresql"
    end_signal = signal.SIGINT

    def settings(self, database: str = NAME, **changes: object) -> dict[str, object]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": self._port,
            "NAME": database,
            "USER": NAME,
            **changes,
        }

    def _set_up(self) -> Sequence[object]:
        return [
            self._programs / "initdb",
            f"--pgdata={self._data}",
            f"--username={NAME}",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]

    def _command(self) -> Sequence[object]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
        }
        told = [f"-c{name}={value}" for name, value in options.items()]
        return [self._programs / "postgres", "-D", self._data, *told]

    def _client(self, statement: str) -> Sequence[object]:
        server = ["-h", "127.0.0.1", "-p", self._port, "-U", NAME, "-d", "postgres"]
        return [self._programs / "psql", "-X", "-q", *server, "-c", statement]


class MariaDB(DatabaseServer):
    kind = "mariadb"

    def settings(self, database: str = NAME, **changes: object) -> dict[str, object]:
        return {
            "ENGINE": "django.db.backends.mysql",
            "HOST": "127.0.0.1",
            "PORT": self._port,
            "NAME": database,
            "USER": "root",
            "TEST": {"CHARSET": "utf8mb4"},
            **changes,
        }

    def _set_up(self) -> Sequence[object]:
        return [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self._data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]

    def _command(self) -> Sequence[object]:
        return [
            self._programs / "mariadbd",
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self._folder / 'socket'}",
            f"--pid-file={self._folder / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={self._port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--max-connections=200",
            "--character-set-server=utf8mb4",
        ]

    def _client(self, statement: str) -> Sequence[object]:
        server = ["-h127.0.0.1", f"-P{self._port}", "-uroot"]
        return ["mariadb", "--no-defaults", *server, "-e", statement]


class SQLite:
    """A file, for runs that are the same on all three; not a server."""

    kind = "sqlite"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="safecache-sqlite-"))
        self._file = self._folder / "db.sqlite3"
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def stop(self) -> None:
        """Lock it, so that nobody else can read or write."""
        self._connection = sqlite3.connect(self._file, isolation_level=None, timeout=60)
        self._connection.execute("BEGIN EXCLUSIVE")

    def close(self) -> None:
        self.start()
        shutil.rmtree(self._folder)

    def settings(self, **changes: object) -> dict[str, object]:
        """An entry of Django's ``DATABASES``."""
        engine = "django.db.backends.sqlite3"
        return {"ENGINE": engine, "NAME": str(self._file), **changes}


def _postgresql() -> PostgreSQL | None:
    # Debian keeps the server's programs out of PATH, in a folder for each version.
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(versions, key=lambda folder: float(folder.parent.name))
    if program := shutil.which("postgres"):
        folders.append(Path(program).resolve().parent)
    return PostgreSQL(folders[-1]) if folders else None


def _mariadb() -> MariaDB | None:
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    return MariaDB(Path(program).resolve().parent) if program else None


Database = DatabaseServer | SQLite
DATABASES = {"sqlite": SQLite, "postgresql": _postgresql, "mariadb": _mariadb}


@contextmanager
def running(kind: str) -> Iterator[Database | None]:
    """One with an empty database; None if there is no server of the kind here."""
    database = DATABASES[kind]()
    if database is None:
        yield None
        return
    try:
        database.start()
        if isinstance(database, DatabaseServer):
            database.execute(f"CREATE DATABASE {NAME}")
        yield database
    finally:
        database.close()


@contextmanager
def running_or_skip(kind: str) -> Iterator[Database]:
    """The same. Without a server the test is skipped, and in CI failed."""
    with running(kind) as server:
        if server is None:
            if os.environ.get("CI"):
                pytest.fail(f"CI must have the server of {kind}")
            pytest.skip(f"the server of {kind} is not installed")
        yield server


def without_server(kind: str) -> int:
    """Say so, and return the exit code that says it too."""
    print(f"the server of {kind} is not installed")
    return 1 if os.environ.get("CI") else ENDED_WITHOUT_SERVER


def _unprivileged_user() -> str:
    """Whom root has to become; empty for another."""
    return "nobody" if os.geteuid() == 0 else ""


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def main() -> int:
    kind, *options = sys.argv[1:]
    # So that the server is ended also when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with running(kind) as server:
        if server is None:
            return 0 if without_server(kind) == ENDED_WITHOUT_SERVER else 1
        told = {ENVIRONMENT_NAME: json.dumps(server.settings())}
        command = [sys.executable, "-m", "pytest", *NOT_THERE, *options, *_tests()]
        environment = {**os.environ, **told}
        return subprocess.run(command, env=environment, check=False).returncode


def _tests() -> list[Path]:
    folder = Path(__file__).resolve().parent
    files = [file for name in TESTS for file in sorted(folder.glob(f"{name}.py"))]
    return files + [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]


if __name__ == "__main__":
    sys.exit(main())

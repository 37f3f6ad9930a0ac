"""A PostgreSQL of the benchmark's own, in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "safecache"
START_SECONDS = 60


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`: of PATH, or the newest that Debian has."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda path: float(path.parts[-3]), default=None)
    if newest is None:
        raise SystemExit(
            "There is no initdb on PATH nor in /usr/lib/postgresql: this benchmark "
            "starts a PostgreSQL of its own. Install the server's package."
        )
    return newest.parent


@contextmanager
def running() -> Iterator[dict[str, object]]:
    """The entry of Django's ``DATABASES`` for a server that ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="safecache-year-"))
    data = folder / "data"
    if os.geteuid() == 0:
        # PostgreSQL refuses to be run by root.
        shutil.chown(folder, "postgres")
    try:
        _run("initdb", "-D", data, "-U", NAME, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        start = ("-w", "-t", START_SECONDS, "-l", folder / "log", "-o", options)
        _run("pg_ctl", "-D", data, *start, "start")
        try:
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": str(folder),
                "USER": NAME,
                "NAME": "postgres",
            }
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: object) -> None:
    as_root = os.geteuid() == 0
    done = subprocess.run(
        [programs() / program, *map(str, arguments)],
        user=pwd.getpwnam("postgres").pw_uid if as_root else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        # Not a pipe: the server inherits it, and would keep it open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{program} {arguments} failed with {done.returncode}.")

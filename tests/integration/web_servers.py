"""Gunicorn and uvicorn as children of the run, and what their processes hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cache_server import free_port, wait_for_port

END_SECONDS = 40
WORKERS = 4
THREADS = 2


class WebServer:
    """Serves Campfire on `address` until `stop`; its output is in `log`."""

    name: str
    paths: tuple[str, ...] = ("/rooms/1/",)
    workers = 1
    end_signal = signal.SIGTERM

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self.log = folder / f"{self.name}.log"
        self.address = f"127.0.0.1:{free_port()}"
        self._environment = environment

    @property
    def urls(self) -> list[str]:
        return [f"http://{self.address}{path}" for path in self.paths]

    def start(self) -> None:
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the run, which ends it in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command()],
                env=self._environment,
                # `-m` puts the working directory before what is installed.
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for_port(self.address, self._process)

    def stop(self) -> int:
        """Ask it to end, and return its exit code once it has; make it, if it takes
        longer than any request may."""
        if self._process.poll() is None:
            self._process.send_signal(self.end_signal)
        try:
            return self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in self.serving():
                os.kill(pid, signal.SIGKILL)
            self._process.kill()
            return self._process.wait()

    def serving(self) -> list[int]:
        """The processes that answer requests."""
        return [self._process.pid]

    def _command(self) -> list[str]:
        raise NotImplementedError


class Gunicorn(WebServer):
    name = "gunicorn"
    workers = WORKERS

    def serving(self) -> list[int]:
        return _children(self._process.pid)

    def _command(self) -> list[str]:
        return [
            "gunicorn",
            "config.wsgi",
            f"--bind={self.address}",
            f"--workers={WORKERS}",
            "--worker-class=gthread",
            f"--threads={THREADS}",
            "--no-control-socket",
        ]


class Uvicorn(WebServer):
    name = "uvicorn"
    paths = ("/rooms/1/", "/async/rooms/1/")
    # After SIGTERM it ends by that signal itself, and no `atexit` is run: what was
    # counted since the last flush is lost with it. After SIGINT it ends in order.
    end_signal = signal.SIGINT

    def _command(self) -> list[str]:
        port = self.address.partition(":")[2]
        return [
            "uvicorn",
            "config.asgi:application",
            "--host=127.0.0.1",
            f"--port={port}",
            "--lifespan=off",
            "--no-access-log",
        ]


SERVERS: dict[str, type[WebServer]] = {each.name: each for each in (Gunicorn, Uvicorn)}


@dataclass(frozen=True)
class Resources:
    """What a process holds, from ``/proc``."""

    pid: int
    threads: int
    sockets: int
    cache_sockets: int
    """Those to the cache's port."""
    rss: int
    """Megabytes."""


def resources(pid: int, cache_port: int) -> Resources:
    proc = Path("/proc") / str(pid)
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines()
    )
    inodes = {target[1] for fd in (proc / "fd").iterdir() if (target := _socket_at(fd))}
    to_cache = {
        fields[9]
        for line in (proc / "net" / "tcp").read_text().splitlines()[1:]
        if (fields := line.split())[2].endswith(f":{cache_port:04X}")
    }
    return Resources(
        pid=pid,
        threads=int(status["Threads"]),
        sockets=len(inodes),
        cache_sockets=len(inodes & to_cache),
        rss=int(status["VmRSS"].split()[0]) // 1024,
    )


def _socket_at(fd: Path) -> re.Match[str] | None:
    try:
        return re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd))
    except FileNotFoundError:  # closed since it was listed
        return None


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has ended
            continue
        # The name, in parentheses, may hold anything.
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)

"""The demo's cache server: memcached if it is installed, else the stand-in."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from typing import Protocol

from django_safecache.testing import LocalMemcached

START_SECONDS = 5.0


class CacheServer(Protocol):
    """A server on one loopback port that can be stopped and started again."""

    name: str
    address: str

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Memcached:
    """The real one, as a child process; `stop` ends that process and no other.

    `options` are more of the command line's.
    """

    def __init__(self, program: str, port: int, *options: str) -> None:
        self.name = f"memcached {_version(program)}, {program}"
        self.address = f"127.0.0.1:{port}"
        self._command = [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0"]
        self._command += options
        if os.geteuid() == 0:
            # memcached refuses to be root unless it is told whom to become.
            self._command += ["-u", _unprivileged_user()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A session of its own: Ctrl-C reaches the demo, which ends it in order.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_port(self.address, self._process)

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            end(self._process)
            self._process = None

    def pause(self) -> None:
        """Stop it as it is: connections stay open, and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


class StandIn:
    """`LocalMemcached` in a thread of the demo."""

    name = "the stand-in in Python (memcached is not on PATH)"

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._server: LocalMemcached | None = None

    def start(self) -> None:
        self._server = LocalMemcached(port=self._port)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def cache_server(port: int) -> CacheServer:
    """The best server this machine has, not yet started."""
    program = shutil.which("memcached")
    return Memcached(program, port) if program else StandIn(port)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when `process` accepts connections; raise `RuntimeError` if it does not.

    It has `START_SECONDS` for it.
    """
    host, _, port = address.partition(":")
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    end(process)
    raise RuntimeError(f"{process.args[0]} does not listen on {address}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask `process` to end; make it, after five seconds. Does nothing twice."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _version(program: str) -> str:
    told = subprocess.run(
        [program, "-V"], capture_output=True, text=True, check=False, timeout=10
    )
    return told.stdout.strip().removeprefix("memcached ")


def _unprivileged_user() -> str:
    try:
        return pwd.getpwnam("nobody").pw_name
    except KeyError:
        return "root"

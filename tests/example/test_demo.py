"""The demo, run as the README says, by a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from real_memcached import memcached_or_skip

DEMO = Path(__file__).parents[2] / "example_project" / "demo.py"
TIMEOUT = 120


@pytest.fixture
def environment(tmp_path):
    """The environment of a user, with all files of the demo under `tmp_path`."""
    return {**os.environ, "CAMPFIRE_VAR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def without_memcached(environment, tmp_path):
    """A PATH on which there is nothing."""
    empty = tmp_path / "bin"
    empty.mkdir()
    return {**environment, "PATH": str(empty)}


def run_demo(environment) -> str:
    done = subprocess.run(
        [sys.executable, DEMO, "--exit"],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    return done.stdout


class TestExit:
    def test_with_memcached(self, environment):
        """It says that it uses the real one, and keeps its promises."""
        memcached_or_skip()
        out = run_demo(environment)
        assert re.search(r"cache +memcached \d", out)
        assert_figures(out)

    def test_without_memcached(self, without_memcached, tmp_path):
        """It says that it uses the stand-in, and keeps the same promises.

        The mail it shows is a file, to the example's recipient.
        """
        out = run_demo(without_memcached)
        assert re.search(r"cache +the stand-in", out)
        assert_figures(out)
        (mail,) = (tmp_path / "demo" / "mail").iterdir()
        assert b"\nTo: ops@campfire.example\n" in mail.read_bytes()


class TestServing:
    def test_until_ctrl_c(self, without_memcached):
        """The addresses it prints are those of pages; Ctrl-C ends all of it."""
        process = subprocess.Popen(
            [sys.executable, DEMO],
            env=without_memcached,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        with process:
            try:
                said = read_until(process.stdout, "Log in as")
                urls = re.findall(r"http://\S+", said)
                assert len(urls) == 3
                assert [status_of(url) for url in urls] == [200] * 3
                process.send_signal(signal.SIGINT)
                assert process.wait(TIMEOUT) == 0
            finally:
                process.kill()
        with pytest.raises(OSError, match="refused"):
            status_of(urls[0])

    def test_a_port_that_is_taken_is_said_at_once(self, without_memcached, taken):
        """Without a traceback, and before anything is started."""
        done = subprocess.run(
            [sys.executable, DEMO, "--port", str(taken)],
            env=without_memcached,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout == (
            f"The demo cannot go on: port {taken}: Address already in use\n"
        )
        assert done.returncode == 1


@pytest.fixture
def taken():
    """A loopback port somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def assert_figures(out: str) -> None:
    """What issue 2 promises is in `out`, in 80 columns."""
    assert max(map(len, out.splitlines())) <= 80
    assert "NOT SO" not in out
    assert "Traceback" not in out
    assert re.search(
        r"ok +It breaks the connection: \w*(BrokenPipe|ConnectionReset|Close)", out
    )
    assert re.search(r"ok +421 of 421 from the cache", out)
    assert re.search(r"filled +200 +421 +421 +0", out)
    assert re.search(r"\n  stopped +200 +421 +0 +421", out)
    assert re.search(r"started again +200 +421 +421 +0", out)
    assert re.search(r"Subject: \[example\] safecache", out)
    kept, of = re.search(r"(\d+) of (\d+) promises kept", out).groups()
    assert kept == of


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310  # loopback
        return page.status


def read_until(stream, text: str) -> str:
    """What `stream` says up to and with the line that has `text`."""
    said = ""
    for line in stream:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without {text!r}:\n{said}")

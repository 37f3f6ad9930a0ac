"""Whole processes that run the command against one database and one SMTP server."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mail_server import SMTP, MailServer, mail_settings

TESTS = Path(__file__).parent.parent
RECIPIENTS = [f"{name}@example.com" for name in ("ops", "dev", "chief")]
PROCESSES = 6

SETTINGS = """\
from safecache_test_settings import *

DATABASES = {{
    "default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}}}
}}
SAFECACHE = {{
    "FLUSH": "manual",
    "DIGEST": {{"RECIPIENTS": {recipients!r}, "FROM": "cache@example.com",
               "SEND_EMPTY": "always"}},
}}
globals().update({mail!r})
"""

# Starts first, then waits until it is told, so that all of them run at the same time.
RUN = """\
import sys
import django
django.setup()
from django.core.management import call_command
print("ready", flush=True)
sys.stdin.readline()
call_command("safecache_digest", skip_checks=True)
"""


@pytest.fixture
def server():
    with MailServer() as server:
        yield server


class Site:
    """A site of its own in `folder`, with a SQLite file that processes share."""

    def __init__(self, folder, port):
        self.database = str(folder / "site.sqlite3")
        text = SETTINGS.format(
            database=self.database,
            recipients=RECIPIENTS,
            mail=mail_settings(SMTP, port=port),
        )
        (folder / "site_settings.py").write_text(text)
        paths = [folder, TESTS, TESTS.parent / "example_project", *sys.path]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths))),
            "DJANGO_SETTINGS_MODULE": "site_settings",
        }
        migrate = self.start("-m", "django", "migrate", "-v0")
        output, _ = migrate.communicate(timeout=60)
        assert migrate.returncode == 0, output

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def digest(self, processes=1):
        """Processes that run the command, all from now on."""
        started = [self.start("-c", RUN) for _ in range(processes)]
        for process in started:
            assert process.stdout.readline() == "ready\n", process.communicate()[0]
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        return started

    def query(self, sql):
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def site(tmp_path, server):
    return Site(tmp_path, server.port)


class TestAtOnce:
    def test_processes_that_run_it_at_once_send_one_mail_to_each_recipient(
        self, site, server
    ):
        processes = site.digest(PROCESSES)
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * PROCESSES, outputs
        assert server.recipients == sorted(RECIPIENTS)
        assert sum("mailed to" in output for output in outputs) == 1
        assert site.query("SELECT status FROM django_safecache_digestmail") == [
            ("sent",)
        ]


class TestKilled:
    def test_who_may_have_the_mail_of_a_killed_process_is_not_mailed_again(
        self, site, server
    ):
        async def hold(recipients):
            if recipients == [RECIPIENTS[1]]:
                held.append(recipients)
                await asyncio.sleep(60)

        held = []
        server.hold = hold
        (process,) = site.digest()
        deadline = time.monotonic() + 60
        while not held and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        output, _ = process.communicate(timeout=10)
        assert held, output
        server.hold = None

        meanwhile, _ = site.digest()[0].communicate(timeout=60)
        assert "Nothing to do" in meanwhile
        site.query(
            "UPDATE django_safecache_digestmail"
            " SET claimed_at = datetime(claimed_at, '-2 hours')"
        )
        later, _ = site.digest()[0].communicate(timeout=60)
        assert f"mailed to {RECIPIENTS[2]}." in later
        assert f"{RECIPIENTS[1]}: The process that was sending died" in later
        assert server.recipients == sorted([RECIPIENTS[0], RECIPIENTS[2]])

"""Whatever the database has, no total is lost, nobody else notices, and it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from real_databases import running_or_skip
from runs import one_run_each

FOLDER = Path(__file__).resolve().parent
PATIENCE = 60

# A process of the site that does what it is told, line by line.
PROCESS = """
import os, sys, threading
import django
from django.conf import settings
from told_database import told_database

settings.configure(
    SECRET_KEY="tests",
    USE_TZ=True,
    DATABASES={"default": told_database()},
    INSTALLED_APPS=["django_safecache"],
    SAFECACHE={"FLUSH": "thread", "FLUSH_INTERVAL": 0.05},
)
django.setup()
from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import Sum
from django_safecache.memcached.outcomes import Outcome, observers
from django_safecache.models import CacheDigest, Problem, ProblemSample, Writer
from django_safecache.recording.sightings import Sighting

ingest = apps.get_app_config("django_safecache").ingest

def observe(hits, server="A"):
    observers.observe(Outcome("default", server, "get", (), hits=hits))

def stored():
    return CacheDigest.objects.aggregate(hits=Sum("hits"))["hits"] or 0

def execute(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)

def options(**changed):
    connections.settings["default"]["OPTIONS"].update(changed)

def fail(text):
    ingest.recorder.occurred(
        ingest.recorder.causes.of("application", "ValueError", None, text),
        lambda: Sighting(text, lambda: text),
        account=text,
    )

def told():
    return list(Writer.objects.values_list("flush_errors", "last_error"))

for line in sys.stdin:
    done = eval(line)
    connection.close()
    print(repr(done), flush=True)
"""


class Process:
    """`PROCESS`, and what it says."""

    def __init__(self, settings, folder):
        known = os.environ.get("PYTHONPATH")
        paths = [str(FOLDER.parent), *([known] if known else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "SAFECACHE_TEST_DATABASE": json.dumps(settings),
                "TMPDIR": str(folder),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, expression):
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return eval(self._process.stdout.readline())  # noqa: S307

    def wait_for(self, expression):
        give_up = time.monotonic() + PATIENCE
        while not self(expression):
            assert time.monotonic() < give_up, expression
            time.sleep(0.02)

    def end(self):
        """What it said on standard error, once it has ended in order."""
        _, said = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, said
        return said

    def kill(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture(
    params=one_run_each("sqlite", "postgresql", "mariadb", of="trouble"),
    scope="module",
)
def server(request):
    with running_or_skip(request.param) as server:
        yield server


@pytest.fixture
def start(server, tmp_path):
    started = []
    # Not in the folder of the test, which only root may enter.
    changes = {"OPTIONS": {"timeout": 0.1} if server.kind == "sqlite" else {}}

    def start():
        process = Process(server.settings(**changes), tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def process(start):
    """One that has stored 3 hits into empty tables."""
    process = start()
    process('call_command("migrate", verbosity=0)')
    process("CacheDigest.objects.all().delete(), Writer.objects.all().delete()")
    process("observe(3)")
    process.wait_for("stored() == 3")
    return process


def go_through(process, begin, end):
    """Count in the trouble and after it; what the writer's row says then."""
    begin()
    process("observe(4)")
    process.wait_for("ingest.trouble.errors.count >= 2")
    process("observe(50)")
    end()
    process.wait_for("stored() == 57")
    process("observe(600)")
    said = process.end()
    assert said.count("flush_failed") == 1
    assert "Traceback" not in said


class TestTrouble:
    def test_stopped_or_locked(self, server, process, start):
        go_through(process, server.stop, server.start)
        assert start()("stored()") == 657

    def test_a_table_is_missing(self, process, start):
        """The writer's row says so while it is."""
        table = "django_safecache_cachedigest"

        def begin():
            process(f'execute("ALTER TABLE {table} RENAME TO hidden")')

        def end():
            ((errors, error),) = process("told()")
            assert errors > 0
            assert error.partition(":")[0] in ("OperationalError", "ProgrammingError")
            process(f'execute("ALTER TABLE hidden RENAME TO {table}")')

        go_through(process, begin, end)
        assert start()("stored()") == 657

    def test_read_only(self, server, process, start):
        if server.kind == "sqlite":
            begin, end = (
                lambda on=on: process(f'options(init_command="PRAGMA query_only={on}")')
                for on in (1, 0)
            )
        elif server.kind == "postgresql":
            begin, end = (
                lambda on=on: server.execute(
                    f"ALTER DATABASE safecache SET default_transaction_read_only = {on}"
                )
                for on in ("on", "off")
            )
        else:
            begin, end = (
                lambda on=on: process(
                    f'options(init_command="SET SESSION TRANSACTION READ {on}")'
                )
                for on in ("ONLY", "WRITE")
            )
        go_through(process, begin, end)
        assert start()("stored()") == 657

    @pytest.mark.parametrize("server", ["sqlite"], indirect=True)
    def test_full(self, process):
        """As SQLite is, when it may not have one more page."""
        process('options(init_command="PRAGMA max_page_count=1")')
        process('[observe(1, f"server {n}") for n in range(1000)] and None')
        process.wait_for("ingest.trouble.errors.count >= 2")
        process('options(init_command="")')
        process.wait_for("stored() == 1003")
        assert "full" in process("told()")[0][1]

    @pytest.mark.parametrize("server", ["postgresql", "mariadb"], indirect=True)
    def test_it_does_not_answer(self, server, process, start, tmp_path):
        """The process goes on, ends in time, and leaves its totals to the next."""
        server.pause()
        try:
            process("observe(4)")
            process("observe(50)")
            process.end()
        finally:
            server.resume()
        (left,) = tmp_path.glob("django_safecache-*/*.json")
        following = start()
        following("observe(600)")
        following.wait_for("stored() == 657")
        assert not left.exists()

    @pytest.mark.parametrize("server", ["postgresql"], indirect=True)
    def test_it_does_not_have_a_letter(self, server, process, tmp_path):
        """The text is told in others, and what was counted is stored."""
        server.execute(
            "CREATE DATABASE western OWNER safecache "
            "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        process = Process(server.settings("western"), tmp_path)
        try:
            process('call_command("migrate", verbosity=0)')
            process('fail("Größe 漢" + " 字" * 150)')
            process("observe(3)")
            process.wait_for("stored() == 3")
            assert process("Problem.objects.get().message").startswith(
                r"Gr\xf6\xdfe \u6f22 \u5b57 "
            )
            assert process("ProblemSample.objects.get().traceback").isascii()
            assert process("told()") == [(0, "")]
        finally:
            process.kill()

    def test_it_is_gone_when_the_process_ends(self, server, process, start):
        server.stop()
        try:
            process("observe(4)")
            process.end()
        finally:
            server.start()
        following = start()
        following("observe(50)")
        following.wait_for("stored() == 57")

"""Whole processes that count, and others that roll up, at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import Max, Sum

from django_safecache.models import CacheDigest, ProblemCount, Resolution, Writer

TESTS = Path(__file__).parent.parent
WRITERS, ROLLUPS, ROUNDS = 3, 2, 12
KILLED_ROUNDS = 4

PROLOGUE = """\
import json, os, sys, time
import django
from django.conf import settings
import safecache_test_settings
settings.configure(
    **{name: value for name, value in vars(safecache_test_settings).items()
       if name.isupper() and name != "DATABASES"},
    DATABASES=json.loads(os.environ["SAFECACHE_PROCESS_DATABASES"]),
)
django.setup()
from datetime import datetime, timezone
from django.db import OperationalError
print("ready", flush=True)
sys.stdin.readline()
"""

# One bucket a round; a store that fails is made again, as `ingest` would.
WRITE = (
    PROLOGUE
    + """\
from observed import NOON, Clock, make_failure, make_outcome
from django_safecache.recording.recorder import Recorder
from django_safecache.storage import store

clock = Clock()
recorder = Recorder(clock=clock)
for number in range(int(sys.argv[1])):
    for server in range(5):
        failures = [make_failure(server=f"10.0.0.{server}:11211")]
        recorder.observe(make_outcome(
            server=f"10.0.0.{server}:11211", hits=1, duration=number, failures=failures
        ))
    for _ in range(2):
        snapshot = recorder.snapshot()
        while True:
            try:
                stored = store(snapshot, using="default", zone=timezone.utc)
                break
            except OperationalError:
                time.sleep(0.01)
        assert not stored.left_out_before
        recorder.forget(snapshot)
        clock.now += 150
snapshot = recorder.snapshot()
store(snapshot, using="default", zone=timezone.utc)
recorder.forget(snapshot)
store(recorder.snapshot(), using="default", zone=timezone.utc)
"""
)

# Until it is told that nobody writes any more, and then once again.
ROLL_UP = (
    PROLOGUE
    + """\
import threading
from observed import NOON
from django_safecache.conf import RetentionDays
from django_safecache.storage import roll_up

ended = threading.Event()
threading.Thread(
    target=lambda: (sys.stdin.readline(), ended.set()), daemon=True
).start()
retention = RetentionDays(five_minutes=2, hour=21, day=365)
last = False
while True:
    now = datetime.fromtimestamp(NOON + 7200, timezone.utc)
    try:
        roll_up(now, using="default", retention=retention)
    except OperationalError:
        continue
    if last:
        break
    last = ended.is_set()
"""
)


@pytest.fixture
def start():
    """Start a script on the database of the tests; it waits for a line."""
    started = []
    name = connection.settings_dict["NAME"]
    keys = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    database = {key: connection.settings_dict[key] for key in keys} | {"NAME": name}
    paths = [TESTS, TESTS.parent / "example_project", *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths))),
        "SAFECACHE_PROCESS_DATABASES": json.dumps({"default": database}, default=str),
    }

    def start(script, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n", process.communicate()[0]
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def wait(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_every_count_is_there_once_at_every_resolution(self, start):
        writers = [start(WRITE, ROUNDS) for _ in range(WRITERS)]
        rollups = [start(ROLL_UP) for _ in range(ROLLUPS)]
        for process in (*writers, *rollups):
            tell(process)
        for process in writers:
            wait(process)
        for process in rollups:
            tell(process)
        for process in rollups:
            wait(process)
        self.check(WRITERS * ROUNDS * 5)
        assert not CacheDigest.objects.filter(writer__gt="").exists()

    def test_so_it_is_after_rollups_were_killed(self, start):
        writer = start(WRITE, ROUNDS)
        tell(writer)
        for _ in range(KILLED_ROUNDS):
            rollup = start(ROLL_UP)
            tell(rollup)
            # Killed at whatever it is doing when the writer has gone on.
            before = Writer.objects.aggregate(last=Max("last_flush"))
            while writer.poll() is None and before == Writer.objects.aggregate(
                last=Max("last_flush")
            ):
                pass
            rollup.kill()
            rollup.communicate()
        wait(writer)
        last = start(ROLL_UP)
        tell(last)
        tell(last)
        wait(last)
        self.check(ROUNDS * 5)

    def check(self, counted):
        for resolution in Resolution:
            for model, column, more in (
                (CacheDigest, "hits", {"place__together": ""}),
                (ProblemCount, "count", {}),
            ):
                rows = model.objects.filter(writer="", resolution=resolution, **more)
                assert rows.aggregate(total=Sum(column))["total"] == counted
        longest = CacheDigest.objects.aggregate(longest=Max("duration_max"))
        assert longest == {"longest": ROUNDS - 1}

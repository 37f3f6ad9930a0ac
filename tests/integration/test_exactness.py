"""The tables have exactly what the cache was asked, on three databases.

`exactness.py` says how; each test is one of its verdicts. The outage is short here. By
hand it takes two minutes, and each disturbance can be had alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from real_databases import DATABASES, ENDED_WITHOUT_SERVER
from real_memcached import memcached_or_skip
from runs import one_run_each

RUN = Path(__file__).with_name("exactness.py")
OUTAGE = 5
TIMEOUT = 300
END_SECONDS = 60

INVARIANTS = (
    "every column has what was observed",
    "every key has what callers were given",
    "every request that failed was undone",
    "every process but a killed one said that it ended",
    "everything ended in order, and said nothing",
)
LOST = "a killed process loses at most one interval"


def verdicts(database, scenario, file):
    memcached_or_skip()
    command = [sys.executable, RUN, database, scenario]
    command += ["--outage", str(OUTAGE), "--json", file]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            printed, _ = process.communicate(timeout=TIMEOUT)
        finally:
            # It ends what it started, unless it is killed.
            process.terminate()
            process.wait(END_SECONDS)
    print(printed)
    if process.returncode == ENDED_WITHOUT_SERVER:
        pytest.skip(printed)
    assert process.returncode in (0, 1), printed
    return {each["name"]: each for each in json.loads(file.read_text())["verdicts"]}


@pytest.fixture(scope="module", params=one_run_each(*DATABASES, of="everything"))
def everything(request, tmp_path_factory):
    """The verdicts of a run in which everything happens."""
    file = tmp_path_factory.mktemp(request.param) / "run.json"
    return verdicts(request.param, "everything", file)


@pytest.fixture(scope="module", params=one_run_each(*DATABASES, of="killed"))
def killed(request, tmp_path_factory):
    """Those of one in which a worker is killed."""
    file = tmp_path_factory.mktemp(request.param) / "run.json"
    return verdicts(request.param, "worker-killed", file)


class TestEverythingAtOnce:
    @pytest.mark.parametrize("name", INVARIANTS)
    def test_invariant(self, everything, name):
        assert everything[name]["held"], everything[name]["detail"]


class TestKilledWorker:
    @pytest.mark.parametrize("name", [*INVARIANTS, LOST])
    def test_invariant(self, killed, name):
        assert killed[name]["held"], killed[name]["detail"]

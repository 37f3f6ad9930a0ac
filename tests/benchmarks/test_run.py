"""The benchmark runs. What it measures is read by people, and decides no test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_memcached import memcached_or_skip

FOLDER = Path(__file__).parent
QUICK = {
    "get_many": 2,  # pylibmc, if it is there, adds one
    "far_get_many": 2,
    "one_key": 1,
    "commands": 12,
    "recording": 2,
}
"""Benchmark to the least number of lines it prints."""
VERDICTS = {"goal met", "met", "NOT MET", "goal missed", "no limit"}


@pytest.fixture(autouse=True)
def _memcached():
    memcached_or_skip()


def run(script: str, *arguments: object) -> str:
    """What the script prints, run as the documentation says."""
    done = subprocess.run(
        [sys.executable, FOLDER / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(printed: str) -> list[list[str]]:
    """The cells of the printed table, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


class TestRun:
    def test_every_row_has_a_ratio_and_a_verdict(self, tmp_path):
        """What is printed is what the JSON says, and the figures are above zero."""
        only = [word for name in QUICK for word in ("--only", name)]
        file = tmp_path / "figures.json"
        printed = run("run.py", "--rounds", 2, "--json", file, *only)
        lines = table(printed)
        assert len(lines) >= sum(QUICK.values())
        for line in lines:
            assert re.fullmatch(r"-?\d+\.\d\dx?\b.*", line[3])
            assert line[6] in VERDICTS
        result = json.loads(file.read_text())
        compared = [
            (row["name"], c) for row in result["rows"] for c in row["comparisons"]
        ]
        assert [(name, c["verdict"]) for name, c in compared] == [
            (line[0], line[6]) for line in lines
        ]
        assert all(c["ratio"] > 0 for _, c in compared)
        assert all(f > 0 for row in result["rows"] for f in row["figures"].values())
        assert {"date", "system", "python", "memcached", "Django"} <= set(
            result["machine"]
        )

    def test_get_many_by_itself(self):
        """The script that is older than the others runs the first row only."""
        names = {line[0] for line in table(run("get_many.py", "--rounds", 2))}
        assert len(names) == 1

    def test_unknown_name(self):
        """It says which names there are."""
        done = subprocess.run(
            [sys.executable, FOLDER / "run.py", "--only", "nothing"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert "far_get_many" in done.stderr

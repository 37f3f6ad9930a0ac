"""Campfire keeps its promises while memcached fails in every way.

`run.py` says how; each test is one of its verdicts. What can be demanded of freshness,
with one process that edits (first the database, then the cache) and many that read:

- After a ``set`` that the server answered, every page that is asked for later shows
  the edit. A reader that had loaded the old text writes it back with ``add``, which
  changes nothing once the new one is there.
- After a ``delete`` that was answered, the same, but for one case: while readers fill
  an empty cache, one that loaded the old text before the edit may ``add`` it after
  the ``delete``. No cache-aside without leases can tell. The report counts those.
- After a write that was lost, the server may have the old text and show it as soon as
  it is back, to processes that know of no loss. It is made good by the process that
  lost it, before that trusts the server again: so there may be no stale page once a
  later write of that process was answered. How many there are until then, and for how
  long, is in the report.
- That process itself never reads the old text again.
- A page shares only loads that began after it was asked for, so that this makes it no
  older, wherever the writer is.

No timing decides: percentiles are for people, and only a page that hangs is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from real_memcached import memcached_or_skip

RUN = Path(__file__).with_name("run.py")
TIMEOUT = 900
END_SECONDS = 60

INVARIANTS = (
    "every answer is 200",
    "every page has all fragments",
    "no page hangs",
    "fresh after a set",
    "fresh after a delete",
    "no page is older because it shares a load",
    "lost writes are made good",
    "the writer never reads what it overwrote",
    "hits + misses + unavailable = keys asked",
    "the tables have what was counted",
    "no growth in sockets",
    "no growth in threads",
    "no growth in rss",
    "no connection to the cache is left over",
    "everything ended in order, and said nothing",
)


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def verdicts(request, tmp_path_factory):
    """Of one run behind that web server, by name."""
    memcached_or_skip()
    file = tmp_path_factory.mktemp(request.param) / "run.json"
    command = [sys.executable, RUN, request.param, "--json", file]
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
    assert process.returncode in (0, 1), printed
    return {each["name"]: each for each in json.loads(file.read_text())["verdicts"]}


class TestFaults:
    def test_every_invariant_is_judged(self, verdicts):
        assert set(verdicts) == set(INVARIANTS)

    @pytest.mark.parametrize("name", INVARIANTS)
    def test_invariant(self, verdicts, name):
        verdict = verdicts[name]
        assert verdict["held"], verdict["detail"]

"""What reports say when others store and roll up between their queries."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from observed import NOON, SERVER, Clock, make_outcome

from django_safecache import reports
from django_safecache.conf import RetentionDays
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period
from django_safecache.storage import roll_up, store

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
HOUR = timedelta(hours=1)
AFTERNOON = Period(AT_NOON, AT_NOON + 6 * HOUR)
OTHER_SERVER = "10.0.0.2:11211"


def stored(**changes):
    """What a process counted is stored, and final."""
    clock = Clock()
    recorder = Recorder(clock=clock, key_groups=lambda keys: [key[0] for key in keys])
    recorder.observe(make_outcome(keys=["a1"], **changes))
    clock.now += 300
    for _ in range(2):
        snapshot = recorder.snapshot()
        store(snapshot, using="default", zone=UTC)
        recorder.forget(snapshot)


def rolled_up():
    retention = RetentionDays(five_minutes=365, hour=365, day=365)
    roll_up(AT_NOON + HOUR, using="default", retention=retention)


@contextmanager
def meanwhile(*others, before="SUM("):
    """They are done before the first query of that kind, as by other processes: the
    places are read when the sums are asked for."""
    to_do = list(others)

    def do(execute, query, *arguments):
        if before in query:
            doing, to_do[:] = to_do[:], []
            for other in doing:
                other()
        return execute(query, *arguments)

    with connection.execute_wrapper(do):
        yield
    assert not to_do


@pytest.fixture(params=[(), (rolled_up,)], ids=["stored", "rolled up"])
def appearing(db, request):
    """One hit is known; a hundred of a new alias, server and group appear."""
    stored(hits=1)

    def others():
        stored(alias="sessions", server=OTHER_SERVER, hits=100)
        stored(alias="sessions", server="", operation="load", loaded=9, duration=9.0)

    return (others, *request.param)


class TestNewPlaces:
    """They belong to nothing that is asked for by other names."""

    @pytest.mark.parametrize("before", ["MIN(", "cacheplace", "SUM("])
    def test_they_are_not_added_to_those_of_other_names(self, appearing, before):
        with meanwhile(*appearing, before=before):
            assert reports.totals(AFTERNOON, alias="default").hits == 1
        with meanwhile():
            assert reports.totals(AFTERNOON, alias="sessions").hits == 100

    def test_they_are_no_server_yet(self, appearing):
        with meanwhile(*appearing):
            rows = reports.by_server(AFTERNOON)
        assert [(row.alias, row.server, row.totals.hits) for row in rows] == [
            ("default", SERVER, 1)
        ]

    def test_they_are_no_key_group_yet(self, appearing):
        with meanwhile(*appearing):
            rows = reports.by_key_group(AFTERNOON)
        assert [(row.alias, row.key_group, row.totals.hits) for row in rows] == [
            ("default", "a", 1)
        ]

    def test_calls_of_loaders_are_not_taken_for_calls_to_servers(self, appearing):
        with meanwhile(*appearing):
            totals = reports.totals(AFTERNOON)
        assert (totals.hits, totals.calls, totals.duration_max < 9.0) == (1, 1, True)


class TestRolledUp:
    @pytest.mark.parametrize("before", ["MIN(", "cacheplace", "SUM("])
    @pytest.mark.parametrize(
        "asked", [{}, {"alias": "default"}, {"server": SERVER}, {"key_group": "a"}]
    )
    def test_what_is_for_the_first_time_is_counted(self, db, asked, before):
        stored(hits=1)
        with meanwhile(rolled_up, before=before):
            assert reports.totals(AFTERNOON, **asked).hits == 1
        assert reports.totals(AFTERNOON, **asked).hits == 1

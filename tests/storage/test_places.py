"""The rows that stand for what is counted apart: created, kept up to date, pruned."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection
from observed import NOON, Clock, make_outcome

from django_safecache.conf import RetentionDays
from django_safecache.recording.recorder import Recorder
from django_safecache.reports import Period
from django_safecache.storage import roll_up, store

pytestmark = pytest.mark.django_db

UTC = timezone.utc
AT_NOON = datetime.fromtimestamp(NOON, UTC)
DAY = timedelta(days=1)
MIDNIGHT = AT_NOON + DAY / 2
RETENTION = RetentionDays(five_minutes=2, hour=21, day=365)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock=clock)


def count(recorder, clock, *servers, **changes):
    """Count a hit, or more, on each and store it."""
    for server in servers or ("a:1",):
        recorder.observe(make_outcome(server=server, **{"hits": 1, **changes}))
    clock.now += 300
    for _ in range(2):
        snapshot = recorder.snapshot()
        store(snapshot, using="default", zone=UTC)
        recorder.forget(snapshot)


def roll(clock):
    now = datetime.fromtimestamp(clock.now, UTC)
    return roll_up(now, using="default", retention=RETENTION)


@contextmanager
def most_asked(at_most):
    """How many ids, names and moments a query is given."""
    given = []

    def note(execute, query, parameters, *arguments):
        given.append(len(parameters or ()))
        return execute(query, parameters, *arguments)

    with connection.execute_wrapper(note):
        yield
    assert max(given) <= at_most


class TestCost:
    """It does not grow with the places of the days before."""

    @pytest.fixture
    def today(self, recorder, clock):
        count(recorder, clock, *(f"{number}:1" for number in range(500)))
        roll(clock)
        clock.now += 86_400
        count(recorder, clock, "new:1")
        return Period(MIDNIGHT, MIDNIGHT + DAY)

    @pytest.mark.usefixtures("today")
    def test_of_folding(self, clock):
        # The columns of the rows that are written.
        with most_asked(8 * 47):
            assert roll(clock).folded == 1

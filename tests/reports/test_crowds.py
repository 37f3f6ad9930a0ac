"""Which problems are told when there are more than can be."""

from __future__ import annotations

from datetime import timedelta

import pytest
from stored import at, occurred, reporting

from django_safecache import reports
from django_safecache.models import Problem
from django_safecache.reports import Period

pytestmark = pytest.mark.django_db

NOON = at(2026, 1, 14, 12)
DAY = timedelta(days=1)
PERIOD = Period(NOON, NOON + DAY)


def junk(number, count=50):
    """What a stranger makes up."""
    for _ in range(number):
        occurred(NOON, kind="browser", exception="Error", count=count)


def own(number, **fields):
    """The site's own, which occur less often."""
    for _ in range(number):
        occurred(NOON, kind="application", exception="Lost", count=7, **fields)


def kinds(rows):
    return [row.kind for row in rows]


def worst(limit=50):
    return reports.worst_problems(PERIOD, limit=limit)


@pytest.mark.parametrize(
    ("own_ones", "strange", "told"),
    [
        (100, 100, (40, 10)),
        (100, 3, (47, 3)),
        (45, 100, (40, 10)),
        (2, 100, (2, 48)),
        (0, 100, (0, 50)),
        (20, 20, (20, 20)),
    ],
)
def test_errors_of_browsers_take_a_fifth_of_the_places_that_others_need(
    own_ones, strange, told
):
    junk(strange)
    own(own_ones)
    for rows in (reports.problems(PERIOD), worst().told):
        told_kinds = kinds(rows)
        assert (told_kinds.count("application"), told_kinds.count("browser")) == told


def test_they_are_told_in_the_order_of_all():
    reporting(NOON - 30 * DAY, NOON)
    junk(200)
    own(2)
    own(1, first_seen=NOON - DAY)
    rows = worst(limit=10)
    assert kinds(rows.told) == [*["browser"] * 7, *["application"] * 3]
    assert [row.status for row in rows.told] == [*["new"] * 9, "ongoing"]
    assert kinds(reports.problems(PERIOD, limit=10)) == kinds(rows.told)


def test_all_are_counted():
    junk(200)
    own(60)
    rows = worst()
    assert rows.numbers == {"new": 260}
    assert rows.occurrences == {"browser": 10_000, "application": 420}


def test_muted_ones_need_no_place():
    junk(60)
    own(60)
    Problem.objects.filter(kind="application").update(
        state="muted", muted_at=NOON - DAY
    )
    assert kinds(worst().told) == ["browser"] * 50

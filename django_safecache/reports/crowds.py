"""What is told where there is more than can be.

Errors of browsers have one place in `BROWSERS_SHARE`: anybody can make up as many as
there are places, and the site's own problems would have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from django_safecache.recording.browser_errors import KIND as BROWSER
from django_safecache.reports.facts import ProblemCountRow

BROWSERS_SHARE = 5

_T = TypeVar("_T")


def told_of(rows: Iterable[ProblemCountRow], limit: int) -> list[ProblemCountRow]:
    """The first `limit` of `rows`, of browsers no more than their share."""
    return first(rows, limit, lambda row: row.kind == BROWSER)


def first(
    ordered: Iterable[_T], limit: int, is_of_browsers: Callable[[_T], bool]
) -> list[_T]:
    """The first `limit`, of browsers no more than their share where others need it."""
    of_site: list[tuple[int, _T]] = []
    of_browsers: list[tuple[int, _T]] = []
    for place in enumerate(ordered):
        (of_browsers if is_of_browsers(place[1]) else of_site).append(place)
    share = max(limit // BROWSERS_SHARE, limit - len(of_site))
    strangers = of_browsers[:share]
    told = [*of_site[: limit - len(strangers)], *strangers]
    return [each for _, each in sorted(told, key=lambda place: place[0])]

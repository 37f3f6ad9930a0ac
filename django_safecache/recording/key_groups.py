"""Which group each key of an outcome is counted under."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from itertools import compress

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording.cells import (
    FIRST_FIGURE,
    FIRST_OF_CALL,
    OF_NO_CALL,
    Figures,
)

MAX_KNOWN = 10_000
"""Keys whose group is remembered; with text of 80 bytes each, 2 MB."""

KeyGroup = Callable[[object], str]


def first_match(patterns: Sequence[tuple[re.Pattern[str], str]]) -> KeyGroup | None:
    """The group of a key is that of the first pattern found in it, or ``""``.

    None when there are no patterns: then nothing needs to be divided.
    """
    if not patterns:
        return None
    return _Known([(pattern.search, name) for pattern, name in patterns]).__getitem__


class _Known(dict[object, str]):
    """The groups of keys, found out once each: a page asks for the same ones again."""

    def __init__(self, searches: Sequence[tuple[Callable[[str], object], str]]) -> None:
        super().__init__()
        self._searches = searches

    def __missing__(self, key: object) -> str:
        text = key if isinstance(key, str) else str(key)
        name = next((name for search, name in self._searches if search(text)), "")
        if type(key) is str:  # 1 and True are the same to a dictionary
            if len(self) >= MAX_KNOWN:
                self.clear()
            self[key] = name
        return name


def divided(outcome: Outcome, key_group: KeyGroup) -> list[tuple[str, Figures]]:
    """The figures of `outcome` by group; the group of the first key comes first.

    The sums over the groups are exactly the outcome's own figures: what its keys do
    not explain (a store that failed without being lost, say) stays with the first
    group. So do the figures of the call as a whole, because a line or a byte of a
    mixed call has no group.
    """
    figures = outcome[FIRST_FIGURE:]
    groups = list(map(key_group, outcome.keys)) or [""]
    first = groups[0]
    if groups.count(first) == len(groups):
        return [(first, figures)]
    asked = Counter(groups)
    parts = _parts_of_keys(outcome, groups, asked)
    call = figures[FIRST_OF_CALL:]
    return [
        (
            group,
            (
                *[part.get(group, 0) for part in parts],
                *(call if group == first else OF_NO_CALL),
            ),
        )
        for group in asked
    ]


def _parts_of_keys(
    outcome: Outcome, groups: Sequence[str], asked: Counter[str]
) -> list[Mapping[str, int]]:
    """Group to number for each of the figures that keys have, in their order."""
    first = groups[0]
    lost = _groups_of(outcome.lost, outcome, groups) if outcome.lost else Counter()
    answered = asked - lost if lost else asked
    if outcome.hits == len(groups):
        hit = asked
    else:
        hit = _groups_of(outcome.found, outcome, groups) if outcome.found else Counter()
    missed = answered - hit if outcome.misses else Counter()
    written = (hit, answered)
    return [
        _part(outcome.hits, first, hit),
        _part(outcome.misses, first, missed),
        _part(outcome.unavailable, first, lost),
        _part(outcome.stored, first, *written),
        _part(outcome.deleted, first, *written),
        _part(outcome.loaded, first, *written),
    ]


def _part(
    total: int, first: str, *explanations: Mapping[str, int]
) -> Mapping[str, int]:
    """What each group has of `total`, by the first explanation whose sum that is."""
    if not total:
        return {}
    for explanation in explanations:
        if sum(explanation.values()) == total:
            return explanation
    return {first: total}


def _groups_of(
    some: Collection[object], outcome: Outcome, groups: Sequence[str]
) -> Counter[str]:
    """How many of the outcome's keys that are among `some` each group has."""
    # Membership in a list of 421 keys, asked 421 times, would take a millisecond.
    these = some if isinstance(some, Set | Mapping) else frozenset(some)
    return Counter(compress(groups, map(these.__contains__, outcome.keys)))

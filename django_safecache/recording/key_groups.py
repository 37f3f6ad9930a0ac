"""Which group each key of an outcome is counted under."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import lru_cache
from itertools import compress
from typing import Any, NamedTuple, cast

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording.cells import (
    FIRST_FIGURE,
    FIRST_OF_CALL,
    OF_NO_CALL,
    Figures,
)

MAX_KNOWN = 10_000
"""Keys that had to be searched whose group is remembered; of 80 bytes each, 3 MB."""

KeyGroups = Callable[[Collection[object]], list[str]]
"""The group of each key, in their order."""

# What a text has to begin with for an expression to be found in it: characters that
# stand for themselves. The last may be optional, behind a comment even.
_BEGINNING = re.compile(
    r"\^((?: (?: [^\\.^$*+?{}\[\]|()] | \\[^a-zA-Z0-9] ) (?![*+?{(]) )*)", re.VERBOSE
)


def first_match(patterns: Sequence[tuple[re.Pattern[str], str]]) -> KeyGroups | None:
    """The group of a key is that of the first pattern found in it, or ``""``.

    None when there are no patterns: then nothing needs to be divided.
    """
    if not patterns:
        return None
    return _FirstMatch([_Pattern.of(*each) for each in patterns])


class _Pattern(NamedTuple):
    beginning: str
    """Of all texts that it is found in."""
    is_all: bool
    """It is found in all that begin so."""
    search: Callable[[str], object]
    name: str

    @classmethod
    def of(cls, pattern: re.Pattern[str], name: str) -> _Pattern:
        expression = pattern.pattern
        found = _BEGINNING.match(expression)
        # Another alternative may begin otherwise, flags give letters other meanings.
        if found is None or "|" in expression or pattern.flags != re.UNICODE:
            return cls("", False, pattern.search, name)
        beginning = re.sub(r"(?s)\\(.)", r"\1", found[1])
        is_all = found.end() == len(expression)
        return cls(beginning, is_all, pattern.search, name)


class _FirstMatch:
    """Looks no further than where a key is in the order of all texts, if that says it.

    All texts with the same beginning stand together. So the beginnings of the patterns
    divide all texts into ranges, and in the texts of a range the same patterns may be
    found: usually one, that is certain to be, or none.
    """

    def __init__(self, patterns: Sequence[_Pattern]) -> None:
        bounds = {bound for each in patterns for bound in _range(each.beginning)}
        # The empty text is before all others: nothing but a text gets by it.
        self._bounds = sorted({"", *bounds})
        ranges = ["", *self._bounds]
        self._possible = [_possible(patterns, first_text) for first_text in ranges]
        self._groups = list(map(_certain, self._possible))
        self._is_searching = None in self._groups
        self._found = lru_cache(MAX_KNOWN)(self._search)

    def __call__(self, keys: Collection[object]) -> list[str]:
        try:
            groups = self._by_range(keys)
        except TypeError:  # a number is neither before a text nor after it
            keys = list(map(_text, keys))
            groups = self._by_range(keys)
        if not self._is_searching:
            return cast("list[str]", groups)
        found = self._found
        return [
            found(key) if group is None else group
            for group, key in zip(groups, keys, strict=True)
        ]

    def _by_range(self, keys: Collection[Any]) -> list[str | None]:
        groups, bounds = self._groups, self._bounds
        return [groups[bisect_right(bounds, key)] for key in keys]

    def _search(self, key: object) -> str:
        text = _text(key)
        # In a loop: a generator would take as long again as the searches.
        for pattern in self._possible[bisect_right(self._bounds, text)]:
            if pattern.search(text):
                return pattern.name
        return ""


def _possible(patterns: Sequence[_Pattern], text: str) -> list[_Pattern]:
    """Those that may be the first to be found in `text` and in its range."""
    possible = []
    for pattern in patterns:
        if text.startswith(pattern.beginning):
            possible.append(pattern)
            if pattern.is_all:
                break
    return possible


def _certain(possible: Sequence[_Pattern]) -> str | None:
    """The group of all texts that these may be found in; None if that depends."""
    if not possible:
        return ""
    return possible[0].name if possible[0].is_all else None


def _range(beginning: str) -> tuple[str, str]:
    """The first text that begins so, and the first after it that does not; ``""`` if
    there is none."""
    stem = beginning.rstrip(chr(sys.maxunicode))
    return beginning, stem and stem[:-1] + chr(ord(stem[-1]) + 1)


def _text(key: object) -> str:
    return key if isinstance(key, str) else str(key)


def divided(outcome: Outcome, groups: Sequence[str]) -> list[tuple[str, Figures]]:
    """The figures of `outcome` by group, given that of each key, and that there is one.

    The group of the first key comes first.

    The sums over the groups are exactly the outcome's own figures: what its keys do
    not explain (a store that failed without being lost, say) stays with the first
    group. So do the figures of the call as a whole, because a line or a byte of a
    mixed call has no group.
    """
    figures = outcome[FIRST_FIGURE:]
    first = groups[0]
    asked = Counter(groups)
    if len(asked) == 1:
        return [(first, figures)]
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

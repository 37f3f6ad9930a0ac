"""Which group each key of an outcome is counted under."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from itertools import compress

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording.cells import KeyCounts

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


def divide(outcome: Outcome, key_group: KeyGroup) -> dict[str, KeyCounts]:
    """The key counts of `outcome` by group; the group of the first key comes first.

    The sums over the groups are exactly the outcome's own figures: what its keys do
    not explain (a store that failed without being lost, say) stays with the first
    group. So do, in the recorder, the figures of the call as a whole, because a line
    or a byte of a mixed call has no group.
    """
    groups = list(map(key_group, outcome.keys)) or [""]
    whole = KeyCounts(
        hits=outcome.hits,
        misses=outcome.misses,
        unavailable=outcome.unavailable,
        loaded=outcome.loaded,
        stored=outcome.stored,
        deleted=outcome.deleted,
    )
    if groups.count(groups[0]) == len(groups):
        return {groups[0]: whole}
    return _divided(outcome, groups, whole)


def _divided(
    outcome: Outcome, groups: Sequence[str], whole: KeyCounts
) -> dict[str, KeyCounts]:
    divided = {group: KeyCounts() for group in dict.fromkeys(groups)}
    lost, found = _searchable(outcome.lost), _searchable(outcome.found)
    unavailable = Counter(compress(groups, map(lost.__contains__, outcome.keys)))
    answered = Counter(groups)
    answered.subtract(unavailable)
    hit = Counter(compress(groups, map(found.__contains__, outcome.keys)))
    missed = {group: answered[group] - hit[group] for group in divided}
    _spread("hits", whole.hits, divided, hit)
    _spread("misses", whole.misses, divided, missed)
    _spread("unavailable", whole.unavailable, divided, unavailable)
    for name in ("stored", "deleted", "loaded"):
        _spread(name, getattr(whole, name), divided, hit, answered)
    return divided


def _spread(
    name: str,
    total: int,
    divided: Mapping[str, KeyCounts],
    *explanations: Mapping[str, int],
) -> None:
    """Give each group its part by the first explanation whose sum is `total`."""
    for parts in explanations:
        if sum(parts.values()) == total:
            for group, part in parts.items():
                setattr(divided[group], name, part)
            return
    setattr(next(iter(divided.values())), name, total)


def _searchable(keys: Collection[object]) -> Collection[object]:
    # Membership in a list of 421 keys, asked 421 times, would take a millisecond.
    return keys if isinstance(keys, Set | Mapping) else frozenset(keys)

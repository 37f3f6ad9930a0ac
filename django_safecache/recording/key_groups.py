"""Which group each key of an outcome is counted under."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence, Set

from django_safecache.memcached.outcomes import Outcome
from django_safecache.recording.cells import KeyCounts

KeyGroup = Callable[[object], str]


def first_match(patterns: Sequence[tuple[re.Pattern[str], str]]) -> KeyGroup | None:
    """The group of a key is that of the first pattern found in it, or ``""``.

    None when there are no patterns: then nothing needs to be divided.
    """
    if not patterns:
        return None
    searches = [(pattern.search, name) for pattern, name in patterns]

    def key_group(key: object) -> str:
        text = key if isinstance(key, str) else str(key)
        for search, name in searches:
            if search(text):
                return name
        return ""

    return key_group


def divide(outcome: Outcome, key_group: KeyGroup) -> dict[str, KeyCounts]:
    """The key counts of `outcome` by group; the group of the first key comes first.

    The sums over the groups are exactly the outcome's own figures: what its keys do
    not explain (a store that failed without being lost, say) stays with the first
    group. So do, in the recorder, the figures of the call as a whole, because a line
    or a byte of a mixed call has no group.
    """
    groups = [key_group(key) for key in outcome.keys] or [""]
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
    divided = {group: KeyCounts() for group in groups}
    lost, found = _searchable(outcome.lost), _searchable(outcome.found)
    answered = dict.fromkeys(divided, 0)
    hit = dict.fromkeys(divided, 0)
    unavailable = dict.fromkeys(divided, 0)
    for key, group in zip(outcome.keys, groups, strict=True):
        if key in lost:
            unavailable[group] += 1
            continue
        answered[group] += 1
        if key in found:
            hit[group] += 1
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

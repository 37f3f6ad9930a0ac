"""How many keys go into one command line. Pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

LINE_OVERHEAD = len(b"get\r\n")
"""Bytes of a line that are not keys: the command word and CRLF. Each key adds
itself and one space."""


def split_batches(
    keys: Sequence[bytes], *, max_bytes: int, max_keys: int
) -> list[Sequence[bytes]]:
    """Split `keys`, in order, into batches whose ``get`` lines fit the limits.

    A line has at most `max_bytes` bytes, CRLF included, and `max_keys` keys; but
    always one key, so a key longer than the limit stands alone on its line.
    """
    if len(keys) == 1:
        return [keys]
    ends = list(accumulate([len(key) + 1 for key in keys]))
    room = max_bytes - LINE_OVERHEAD
    batches: list[Sequence[bytes]] = []
    start, spent = 0, 0
    while start < len(keys):
        stop = bisect_right(ends, spent + room, start, min(start + max_keys, len(keys)))
        stop = max(stop, start + 1)
        batches.append(keys[start:stop])
        start, spent = stop, ends[stop - 1]
    return batches

"""How many keys go into one command line. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from django_safecache.memcached.protocol import get_line

LINE_OVERHEAD = len(b"get\r\n")
"""Bytes of a line that are not keys: the command word and CRLF. Each key adds
itself and one space."""


def get_lines(keys: Sequence[bytes], *, max_bytes: int, max_keys: int) -> list[bytes]:
    """The ``get`` lines for `keys`, in order, that fit the limits and are full.

    A line has at most `max_bytes` bytes, CRLF included, and `max_keys` keys; but
    always one key, so a key longer than the limit stands alone on its line.
    """
    # Joined as the lines will be, each is cut at the last space in its reach: several
    # times as fast as adding up the lengths of keys. There is a space after each key.
    text = b" ".join([*keys, b""])
    room = max(max_bytes - LINE_OVERHEAD, 1)
    lines = []
    start = 0
    while start < len(text):
        end = text.rfind(b" ", start, start + room)
        if end < 0:
            end = text.index(b" ", start)
        batch = text[start:end]
        if batch.count(b" ") >= max_keys:
            batch = b" ".join(batch.split(b" ", max_keys)[:max_keys])
        lines.append(get_line(batch))
        start += len(batch) + 1
    return lines

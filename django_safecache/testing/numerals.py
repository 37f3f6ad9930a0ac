"""Numbers as memcached reads them: C's strtoull and strtol, whitespace and all."""

from __future__ import annotations

import re

_NUMERAL = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)(?=[ \t\n\v\f\r\0]|\Z)")
_LONGEST_64_BIT = 20


def unsigned(text: bytes) -> int | None:
    """The 64-bit number `text` begins with, or None.

    What follows whitespace or a NUL is ignored. A minus sign wraps around, as
    in C, and is refused where the result has its top bit set.
    """
    parsed = _parse(text)
    if parsed is None:
        return None
    negative, magnitude = parsed
    if not negative:
        return magnitude
    wrapped = -magnitude % 2**64
    return wrapped if wrapped < 2**63 else None


def signed(text: bytes) -> int | None:
    """The number `text` begins with, cut to its lowest 32 bits, or None."""
    parsed = _parse(text)
    if parsed is None:
        return None
    negative, magnitude = parsed
    value = -magnitude if negative else magnitude
    if not -(2**63) <= value < 2**63:
        return None
    return (value + 2**31) % 2**32 - 2**31


def _parse(text: bytes) -> tuple[bool, int] | None:
    match = _NUMERAL.match(text)
    if match is None:
        return None
    # Leading zeros go first: int() refuses more than 4300 digits.
    digits = match[2].lstrip(b"0") or b"0"
    if len(digits) > _LONGEST_64_BIT or int(digits) >= 2**64:
        return None
    return match[1] == b"-", int(digits)

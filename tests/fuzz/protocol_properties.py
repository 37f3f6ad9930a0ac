"""What must hold of the reply parsers for any bytes in any fragmentation.

Needs nothing but the package: the fuzz target and the tests both call `check_input`.
"""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import NamedTuple, Union

from django_safecache.exceptions import ProtocolError, ReplyError
from django_safecache.memcached import protocol
from django_safecache.memcached.get_replies import (
    GetReplies,
    GetsReplies,
    Items,
    sole_value,
)
from django_safecache.memcached.protocol import StatsReply, StatusReplies

LINES = [b"get a bb\r\n", b"get a\r\n", b"get key a c\r\n"]
"""What was asked in three lines of ``get``."""
ASKED = {key for line in LINES for key in protocol.keys_of(line)}
COMMANDS = 3
"""How many storage commands were sent."""
OPERATIONS = (
    "get",
    "set",
    "add",
    "delete",
    "touch",
    "incr",
    "decr",
    "flush_all",
    "version",
    "gets",
    "stats",
)
BYTE_BY_BYTE = 3 * protocol.MAX_LINE
"""Up to this many bytes each is fed alone, too."""


Replies = Union["Found", "FoundByGets", StatsReply, StatusReplies]


class Understood(NamedTuple):
    """All that a caller can see of a parser after it was fed."""

    parsed: list
    answered: int
    complete: bool
    error: str


class Found(GetReplies):
    """A parser that keeps what it has found."""

    def __init__(self, lines: list[bytes]) -> None:
        self.items = Items([], [], [])
        super().__init__(lines, self.items.extend)


class FoundByGets(GetsReplies):
    """The same for ``gets``."""

    def __init__(self, lines: list[bytes]) -> None:
        self.items = Items([], [], [])
        super().__init__(lines, self.items.extend)


def check_input(data: bytes) -> None:
    """Check all properties of one input: an operation, cuts, and a server's bytes.

    The first byte chooses the operation (``0`` is get) and the second how many cuts
    follow, two bytes each: ``00`` begins an input of bytes in one piece. Raises
    AssertionError for what must not be, and whatever the parsers should not raise.
    """
    if len(data) < 2:
        return
    operation = OPERATIONS[(data[0] - ord("0")) % len(OPERATIONS)]
    stop = 2 + 2 * ((data[1] - ord("0")) % 8)
    cuts = [int.from_bytes(data[at : at + 2], "big") for at in range(2, stop, 2)]
    check(operation, data[stop:], cuts)


def check(operation: str, received: bytes, cuts: list[int]) -> None:
    """Feed `received` at once, in pieces cut at `cuts`, and byte by byte."""
    whole = _feed(operation, [received])
    assert whole == _feed(operation, _pieces(received, cuts))
    if len(received) <= BYTE_BY_BYTE:
        each = [received[at : at + 1] for at in range(len(received))]
        assert whole == _feed(operation, each)
    _check_shortcuts(operation, received)


def _feed(operation: str, pieces: list[bytes]) -> Understood:
    replies = _replies(operation)
    fed, error = 0, ""
    for number, piece in enumerate(pieces):
        fed += len(piece)
        try:
            replies.feed(piece)
        except (ProtocolError, ReplyError) as raised:
            error = type(raised).__name__
            break
        if number < 8:  # it walks over all objects, which takes its time
            assert _bytes_held(replies) <= fed
    assert _bytes_held(replies) <= fed
    parsed = _parsed(replies)
    if operation in ("get", "gets"):
        assert set(replies.items.keys) <= ASKED
    elif operation != "stats":
        assert len(parsed) == replies.answered <= COMMANDS
    return Understood(parsed, replies.answered, replies.complete, error)


def _parsed(replies: Replies) -> list:
    if isinstance(replies, FoundByGets):
        return [replies.items.rows(), replies.uniques]
    if isinstance(replies, Found):
        return replies.items.rows()
    if isinstance(replies, StatsReply):
        return list(replies.stats.items())
    return replies.statuses


def _replies(operation: str) -> Replies:
    if operation == "get":
        return Found(LINES)
    if operation == "gets":
        return FoundByGets(LINES)
    if operation == "stats":
        return StatsReply()
    return StatusReplies(operation, COMMANDS)


def _pieces(received: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(received), *(cut % (len(received) + 1) for cut in cuts)})
    return [received[start:stop] for start, stop in pairwise(edges)]


def _bytes_held(replies: object) -> int:
    """The bytes that a parser keeps, whatever its attributes are called."""
    asked = set(map(id, LINES))
    seen, held, to_visit = {id(LINES)}, 0, [vars(replies)]
    while to_visit:
        each = to_visit.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, bytes):
            held += 0 if id(each) in asked else len(each)
        elif isinstance(each, list | tuple | dict):
            to_visit += gc.get_referents(each)
    return held


def _check_shortcuts(operation: str, received: bytes) -> None:
    """One reply that is taken without a parser is what the parser says, too."""
    if operation == "get":
        for key in (b"a", b"key"):
            sole = sole_value(received, key)
            if sole is not None:
                replies = Found([protocol.get_line(key)])
                replies.feed(received)
                assert replies.items.rows() == [(key, *sole)]
                assert replies.complete
        return
    if operation in ("gets", "stats"):
        return
    status = protocol.sole_status(operation, received)
    if status is not None:
        replies = StatusReplies(operation, 1)
        replies.feed(received)
        assert replies.statuses == [status]
        assert replies.complete

"""The replies to ``get`` and ``gets``: the incremental parser, and its quick way.

Source: memcached's doc/protocol.txt.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

from django_safecache.exceptions import ProtocolError, ReplyError
from django_safecache.memcached.protocol import (
    MISS,
    check_beginning,
    get_line,
    keys_of,
    not_understood,
)

MAX_VALUE = 1 << 30
"""memcached accepts item limits (-I) up to 1 GiB."""
_NEXT = b"\r\nVALUE "
_END = b"\r\nEND"
MAX_DIGITS = 10
"""Digits of a number of 32 bits."""
SMALL_ITEM = 8192
"""Bytes of an item up to which it is worth looking for many at once."""


class Items(NamedTuple):
    """What ``get`` found: three columns, of which each row is one item.

    Columns, because whole columns are checked and decoded several times as fast as
    one item after another.
    """

    keys: list[bytes]
    flags: list[bytes]
    """as sent, in digits"""
    values: list[bytes]

    def extend(self, more: Items) -> None:
        for column, rest in zip(self, more, strict=True):
            column.extend(rest)

    def rows(self) -> list[tuple[bytes, bytes, bytes]]:
        """(key, flags, value) of each item"""
        return list(zip(*self, strict=True))


class GetReplies:
    """The replies to ``get`` lines, one after another.

    `keep` is given what was found, as it arrives; `answered` counts the lines that are
    complete. `feed` raises `ReplyError` for an error line and `ProtocolError` for bytes
    that are no reply to these lines; after either the connection is of no use.
    """

    WORDS = 4
    """of a line that begins a value"""

    def __init__(self, lines: Sequence[bytes], keep: Callable[[Items], None]) -> None:
        self._lines = lines
        self._keep = keep
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self._owed: set[bytes] | None = None
        self.answered = 0

    @property
    def complete(self) -> bool:
        return self.answered == len(self._lines)

    @property
    def owed(self) -> set[bytes]:
        """The keys of the first line without a whole answer that have not come."""
        if self._owed is None:
            line = b"" if self.complete else self._lines[self.answered]
            self._owed = set(keys_of(line))
        return self._owed

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the server, any number of them."""
        if self._held:
            self._chunks.append(data)
            self._held += len(data)
            # A large value arrives in many pieces: joined once, when all are here.
            if self._held < self._wanted:
                return
            data = b"".join(self._chunks)
            self._chunks = []
        understood = self._parse(data)
        self._held = len(data) - understood
        if not self._held:
            return
        if self.complete:
            raise ProtocolError("bytes after the last reply")
        self._chunks.append(data[understood:])

    def _parse(self, data: bytes) -> int:
        """Keep what is whole of `data`; return how many bytes that is."""
        items, position = Items([], [], []), 0
        try:
            while data.startswith(MISS, position):
                self._end_of_line(b"END")
                position += len(MISS)
            position = self._parse_columns(data, position, items)
            position = self._parse_each(data, position, items)
        except (ReplyError, ProtocolError):
            self._keep(items)  # what came before the error stands
            raise
        self._keep(items)
        return position

    def _parse_each(self, data: bytes, position: int, items: Items) -> int:
        """Understand `data` from `position` on, item by item; return how far."""
        self._wanted = 0
        while (eol := data.find(b"\r\n", position)) >= 0:
            words = data[position:eol].split(b" ")
            if len(words) != self.WORDS or words[0] != b"VALUE":
                self._end_of_line(data[position:eol])
                position = eol + 2
                continue
            _, key, flags, size, *unique = words
            if not (
                _is_number(flags)
                and _is_number(size)
                and all(each.isdigit() and len(each) <= 20 for each in unique)
            ):
                raise ProtocolError("a VALUE line without flags and a length")
            if key not in self.owed:
                raise ProtocolError("a value for a key that was not asked")
            start = eol + 2
            end = start + int(size)
            if data[end : end + 2] != b"\r\n":
                self._check_incomplete(end - start, len(data) - end)
                self._wanted = end + 2 - position
                return position
            self.owed.remove(key)
            items.keys.append(key)
            items.flags.append(flags)
            items.values.append(data[start:end])
            self._note(key, *unique)
            position = end + 2
        check_beginning(data[position:])
        return position

    def _note(self, key: bytes, *unique: bytes) -> None:
        """What else the line said of an item."""

    @staticmethod
    def _check_incomplete(size: int, received_behind: int) -> None:
        if size > MAX_VALUE:
            raise ProtocolError("a VALUE line with a length over 1 GiB")
        if received_behind >= 2:
            raise ProtocolError("a value that is not of the announced length")

    def _end_of_line(self, line: bytes) -> None:
        if self.complete:
            raise ProtocolError("bytes after the last reply")
        if line != b"END":
            raise not_understood(line)
        self.answered += 1
        self._owed = None

    def _parse_columns(self, data: bytes, position: int, items: Items) -> int:
        """As `_parse_each` of all small items but the last, several times as fast.

        Guesses that what looks like the next item is the next item, and takes what it
        cut only if every length agrees: then the cuts were right. On anything unusual
        it takes nothing, and leaves it to `_parse_each` to say what it is.
        """
        first = position + len(b"VALUE ")
        if (
            self.complete
            or not data.startswith(b"VALUE ", position)
            or data.find(_NEXT, first, first + SMALL_ITEM) < 0
        ):
            return position
        *chunks, rest = data[first:].split(_NEXT)
        heads, crlfs, values = zip(
            *map(bytes.partition, chunks, repeat(b"\r\n")), strict=True
        )
        # No head has a CRLF in it: where these are shows whether each has three words.
        words = b" \r\n ".join(heads).split(b" ")
        keys, flags, sizes, between = (words[start::4] for start in range(4))
        if not (
            len(keys) == len(flags) == len(sizes) == len(heads)
            and between.count(b"\r\n") == len(between) == len(heads) - 1
            and crlfs.count(b"\r\n") == len(crlfs)
            and _are_numbers(flags)
            and _are_numbers(sizes)
        ):
            return position
        found = Items(keys, flags, list(values))
        excess = map(operator.sub, map(len, values), map(int, sizes))
        if not self._take(found, excess):
            return position
        items.extend(found)
        return len(data) - len(rest) - len(b"VALUE ")

    def _take(self, items: Items, excess: Iterable[int]) -> bool:
        """Go on behind `items`, if each belongs to its line; if not, change nothing.

        The bytes by which a value is in `excess` of its length must be ends of lines.
        """
        keys, _, values = items
        answered, owed, start = self.answered, self._owed, 0
        for stop, size in enumerate(excess, 1):
            if not size:
                continue
            ends, no_end = divmod(size, len(_END))
            if ends < 1 or no_end or not values[stop - 1].endswith(_END * ends):
                return False
            if _still_owed(owed, self._lines[answered], keys[start:stop]) is None:
                return False
            values[stop - 1] = values[stop - 1][:-size]
            answered, owed, start = answered + ends, None, stop
            if answered >= len(self._lines):
                return False
        owed = _still_owed(owed, self._lines[answered], keys[start:])
        if owed is None:
            return False
        self.answered, self._owed = answered, owed
        return True


class GetsReplies(GetReplies):
    """The replies to ``gets`` lines: `uniques` holds what ``cas`` compares, by key."""

    WORDS = 5

    def __init__(self, lines: Sequence[bytes], keep: Callable[[Items], None]) -> None:
        super().__init__(lines, keep)
        self.uniques: dict[bytes, bytes] = {}

    def _parse_columns(self, data: bytes, position: int, items: Items) -> int:
        return position

    def _note(self, key: bytes, *unique: bytes) -> None:
        (self.uniques[key],) = unique


def _still_owed(
    owed: set[bytes] | None, line: bytes, keys: Sequence[bytes]
) -> set[bytes] | None:
    """What of `line` has to come after `keys`; None if one of them had not.

    `owed` is what had to come before them, None for all that `line` asks.
    """
    if owed is None:
        if get_line(b" ".join(keys)) == line:
            return set()
        owed = set(keys_of(line))
    left = owed.difference(keys)
    return left if len(owed) - len(left) == len(keys) else None


def _are_numbers(words: Sequence[bytes]) -> bool:
    """Whether each is what `_is_number` takes."""
    return (
        b"".join(words).isdigit()
        and b"" not in words
        and max(map(len, words)) <= MAX_DIGITS
    )


def _is_number(word: bytes) -> bool:
    """Whether it is what memcached sends for flags and lengths: of 32 bits."""
    return word.isdigit() and len(word) <= MAX_DIGITS


def sole_value(data: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """(flags, value) if `data` is one whole reply to ``get`` of `key`, which was found.

    None for everything else, be it a miss, a beginning or an error: `GetReplies`
    tells them apart.
    """
    head = b"VALUE %b " % key
    if not (data.startswith(head) and data.endswith(b"\r\nEND\r\n")):
        return None
    numbers, crlf, value = data[len(head) : -len(b"\r\nEND\r\n")].partition(b"\r\n")
    flags, _, size = numbers.partition(b" ")
    if not (
        crlf and _is_number(flags) and _is_number(size) and int(size) == len(value)
    ):
        return None
    return flags, value

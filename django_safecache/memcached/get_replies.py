"""The replies to ``get`` and ``gets``: the incremental parser, and its quick way.

Source: memcached's doc/protocol.txt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from io import BytesIO
from itertools import compress
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
MAX_DIGITS = 10
"""Digits of a number of 32 bits."""
_SOLE_VALUE = re.compile(
    rb"VALUE ([^ ]+) (\d{1,10}) (\d{1,10})\r\n(.*)\r\nEND\r\n", re.DOTALL
).fullmatch


_SIZES = {b"%d\r\n" % size: size for size in range(4096)}
"""Of most values, by the word that tells it: `int` takes twice as long to find it."""


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

    def without(self, keys: Collection[bytes]) -> Items:
        """These, but for the items of `keys`."""
        others = [key not in keys for key in self.keys]
        return Items(*[list(compress(column, others)) for column in self])

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
            position = self._parse_quickly(data, items)
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

    def _parse_quickly(self, data: bytes, items: Items) -> int:
        """As `_parse_each` of what is whole, in half the time: each item is cut as it
        says, and all are checked at once. On anything unusual it takes nothing, and
        leaves it to `_parse_each` to say what it is.
        """
        stream = BytesIO(data)
        words: list[bytes] = []
        values: list[bytes] = []
        ends: list[int] = []
        try:
            left = _cut(stream, words, values, ends)
        except ValueError:  # a length that is none
            return 0
        tags, keys, flags = (words[start::4] for start in range(3))
        if not (
            tags.count(b"VALUE") == len(values)
            and all(map(_is_number, different(flags)))
            and self._take(keys, ends)
        ):
            return 0
        items.extend(Items(keys, flags, values))
        return stream.tell() - left

    def _take(self, keys: Sequence[bytes], ends: Sequence[int]) -> bool:
        """Go on behind `keys`, of which those before each of `ends` are the answer to
        one more line; if one was not asked for by its line, change nothing."""
        answered, owed, start = self.answered, self._owed, 0
        for stop in ends:
            if answered >= len(self._lines):
                return False
            if _still_owed(owed, self._lines[answered], keys[start:stop]) is None:
                return False
            answered, owed, start = answered + 1, None, stop
        if start < len(keys):
            if answered >= len(self._lines):
                return False
            owed = _still_owed(owed, self._lines[answered], keys[start:])
            if owed is None:
                return False
        self.answered, self._owed = answered, owed
        return True


def _cut(
    stream: BytesIO, words: list[bytes], values: list[bytes], ends: list[int]
) -> int:
    """Read what is whole: the `words` of the lines that begin a value, four of each;
    the `values`; and how many of them there are before each of the `ends` of replies.

    Returns how many of the bytes read belong to what is not whole, or something else.
    Checks nothing but lengths, and where values end; raises `ValueError` for a length
    that is none.
    """
    # A stream, because it finds the next line and steps over values by itself: that
    # takes half the time of finding and slicing.
    readline, read, keep = stream.readline, stream.read, values.append
    known = _SIZES.get
    while True:
        line = readline()
        four = line.split(b" ")
        if len(four) == 4:
            size = known(four[3])
            if size is None:
                if not line.endswith(b"\r\n"):
                    return len(line)
                size = _size(four[3][:-2])
            value = read(size)
            crlf = read(2)
            if crlf != b"\r\n":
                return len(line) + len(value) + len(crlf)
            words += four
            keep(value)
        elif line == MISS:
            ends.append(len(values))
        else:
            return len(line)


class GetsReplies(GetReplies):
    """The replies to ``gets`` lines: `uniques` holds what ``cas`` compares, by key."""

    WORDS = 5

    def __init__(self, lines: Sequence[bytes], keep: Callable[[Items], None]) -> None:
        super().__init__(lines, keep)
        self.uniques: dict[bytes, bytes] = {}

    def _parse_quickly(self, data: bytes, items: Items) -> int:
        return 0

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


def _size(word: bytes) -> int:
    if _is_number(word) and (size := int(word)) <= MAX_VALUE:
        return size
    raise ValueError("a length that is none")


def different(words: Sequence[bytes]) -> Collection[bytes]:
    """Those of `words` that differ; quickly where all are alike."""
    if not words or words.count(words[0]) == len(words):
        return words[:1]
    return set(words)


def _is_number(word: bytes) -> bool:
    """Whether it is what memcached sends for flags and lengths: of 32 bits."""
    return word.isdigit() and len(word) <= MAX_DIGITS


def sole_value(data: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """(flags, value) if `data` is one whole reply to ``get`` of `key`, which was found.

    None for everything else, be it a miss, a beginning or an error: `GetReplies`
    tells them apart.
    """
    whole = _SOLE_VALUE(data)
    if whole is None:
        return None
    found, flags, size, value = whole.groups()
    return (flags, value) if found == key and int(size) == len(value) else None

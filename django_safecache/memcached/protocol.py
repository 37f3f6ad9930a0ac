"""memcached's text protocol without I/O: command lines out, replies in.

A replies object is made for the commands of one pipeline on one connection. It
is fed bytes in any fragmentation, checks them against what was asked, and keeps
what it has understood even when the bytes after that are wrong.

Source: memcached's doc/protocol.txt.
"""

from __future__ import annotations

from collections.abc import Sequence

from django_safecache.exceptions import ProtocolError, ReplyError

MAX_LINE = 2048
"""Bytes of a reply line. The longest that memcached sends are its error lines."""
MAX_VALUE = 1 << 30
"""memcached accepts item limits (-I) up to 1 GiB."""

Item = tuple[bytes, bytes, bytes]
"""key, flags as sent, value"""


def get_line(keys: Sequence[bytes]) -> bytes:
    return b"get " + b" ".join(keys) + b"\r\n"


def store_line(
    command: bytes, key: bytes, flags: int, exptime: int, data: bytes
) -> bytes:
    """set, add or replace, with its data block."""
    return b"%b %b %d %d %d\r\n%b\r\n" % (command, key, flags, exptime, len(data), data)


def delete_line(key: bytes) -> bytes:
    return b"delete %b\r\n" % key


def touch_line(key: bytes, exptime: int) -> bytes:
    return b"touch %b %d\r\n" % (key, exptime)


def arithmetic_line(command: bytes, key: bytes, delta: int) -> bytes:
    """incr or decr; `delta` is not negative."""
    return b"%b %b %d\r\n" % (command, key, delta)


FLUSH_ALL = b"flush_all\r\n"
VERSION = b"version\r\n"
MISS = b"END\r\n"
"""The whole reply to a ``get`` that found nothing."""

_STATUSES = {
    "set": frozenset([b"STORED", b"NOT_STORED"]),
    "add": frozenset([b"STORED", b"NOT_STORED"]),
    "delete": frozenset([b"DELETED", b"NOT_FOUND"]),
    "touch": frozenset([b"TOUCHED", b"NOT_FOUND"]),
    "incr": frozenset([b"NOT_FOUND"]),
    "decr": frozenset([b"NOT_FOUND"]),
    "flush_all": frozenset([b"OK"]),
    "version": frozenset[bytes](),
}


class GetReplies:
    """The replies to ``get`` lines, one after another.

    `items` grows with what was received; `answered` counts the lines that are
    complete. `feed` raises `ReplyError` for an error line and `ProtocolError` for bytes
    that are no reply to these lines; after either the connection is of no use.
    """

    def __init__(self, batches: Sequence[Sequence[bytes]]) -> None:
        self._batches = batches
        self._batch: Sequence[bytes] = batches[0] if batches else ()
        self._cursor = 0
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 0
        self.items: list[Item] = []
        self.answered = 0
        self.complete = not batches

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
        """Understand as much of `data` as is whole; return how many bytes that is.

        This loop is most of what a large multi-get costs: it is written for speed.
        """
        position, cursor = 0, self._cursor
        batch, items, find = self._batch, self.items, data.find
        self._wanted = 0
        while (eol := find(b"\r\n", position)) >= 0:
            words = data[position:eol].split(b" ")
            if len(words) != 4 or words[0] != b"VALUE":
                self._end_of_line(data[position:eol])
                batch, cursor = self._batch, 0
                position = eol + 2
                continue
            _, key, flags, size = words
            if not (_is_number(flags) and _is_number(size)):
                raise ProtocolError("a VALUE line without flags and a length")
            # Servers answer in the order asked, so this mostly looks at one key.
            if cursor < len(batch) and batch[cursor] == key:
                after = cursor + 1
            else:
                after = self._search(key, cursor)
            start = eol + 2
            end = start + int(size)
            if data[end : end + 2] != b"\r\n":
                self._check_incomplete(end - start, len(data) - end)
                self._wanted = end + 2 - position
                break
            items.append((key, flags, data[start:end]))
            cursor = after
            position = end + 2
        self._cursor = cursor
        if not self._wanted:
            _check_beginning(data[position:])
        return position

    @staticmethod
    def _check_incomplete(size: int, received_behind: int) -> None:
        if size > MAX_VALUE:
            raise ProtocolError("a VALUE line with a length over 1 GiB")
        if received_behind >= 2:
            raise ProtocolError("a value that is not of the announced length")

    def _search(self, key: bytes, cursor: int) -> int:
        """The place behind `key` in the batch that is being answered."""
        if key not in self._batch:
            raise ProtocolError("a value for a key that was not asked")
        try:
            return self._batch.index(key, cursor) + 1
        except ValueError:  # a proxy may answer in another order
            return 0

    def _end_of_line(self, line: bytes) -> None:
        if self.complete:
            raise ProtocolError("bytes after the last reply")
        if line == b"END":
            self.answered += 1
            self.complete = self.answered == len(self._batches)
            self._batch = () if self.complete else self._batches[self.answered]
            return
        raise _not_understood(line)


def sole_value(data: bytes, key: bytes) -> tuple[bytes, bytes] | None:
    """(flags, value) if `data` is one whole reply to ``get`` of `key`, which was found.

    None for everything else, be it a miss, a beginning or an error: `GetReplies`
    tells them apart.
    """
    head = b"VALUE %b " % key
    if not (data.startswith(head) and data.endswith(b"\r\nEND\r\n")):
        return None
    eol = data.index(b"\r\n", len(head))
    flags, _, size = data[len(head) : eol].partition(b" ")
    if not (_is_number(flags) and _is_number(size)):
        return None
    value = data[eol + 2 : eol + 2 + int(size)]
    if eol + 2 + len(value) + len(b"\r\nEND\r\n") != len(data):
        return None
    return flags, value


def _is_number(word: bytes) -> bool:
    """Whether it is what memcached sends for flags and lengths: of 32 bits."""
    return word.isdigit() and len(word) <= 10


def sole_status(operation: str, data: bytes) -> bytes | None:
    """The status if `data` is one whole reply to a command of `operation`, as
    `StatusReplies` would take it; None for everything else."""
    status = data[:-2]
    if data.endswith(b"\r\n") and is_status(operation, status):
        return status
    return None


def is_status(operation: str, line: bytes) -> bool:
    """Whether `line` is an answer that a command of `operation` can have."""
    if line in _STATUSES[operation]:
        return True
    if len(line) > MAX_LINE:
        return False
    if operation in ("incr", "decr"):
        return line.isdigit() and len(line) <= 20
    return operation == "version" and line.startswith(b"VERSION ") and b"\n" not in line


class StatusReplies:
    """The replies to commands that are answered by one line each.

    `statuses` are the lines so far: ``STORED``, ``NOT_FOUND``, a number...
    Raises as `GetReplies` does.
    """

    def __init__(self, operation: str, count: int) -> None:
        self._operation = operation
        self._count = count
        self._rest = b""
        self.statuses: list[bytes] = []

    @property
    def answered(self) -> int:
        return len(self.statuses)

    @property
    def complete(self) -> bool:
        return len(self.statuses) == self._count

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the server, any number of them."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if self.complete:
                raise ProtocolError("bytes after the last reply")
            if not is_status(self._operation, line):
                raise _not_understood(line)
            self.statuses.append(line)
        if self._rest and self.complete:
            raise ProtocolError("bytes after the last reply")
        _check_beginning(self._rest)


def _check_beginning(line: bytes) -> None:
    """Raise `ProtocolError` if no line, CR included, can begin like this."""
    if len(line) > MAX_LINE + 1:
        raise ProtocolError(f"more than {MAX_LINE} bytes without an end of line")


def _not_understood(line: bytes) -> ReplyError | ProtocolError:
    if len(line) > MAX_LINE:
        return ProtocolError(f"a line of {len(line)} bytes")
    if line == b"ERROR" or line.startswith(
        (b"ERROR ", b"CLIENT_ERROR", b"SERVER_ERROR")
    ):
        return ReplyError(line.decode("utf-8", "replace"))
    return ProtocolError(
        f"a line that is no reply to what was asked ({len(line)} bytes)"
    )

"""memcached's text protocol without I/O: command lines out, replies in.

A replies object, here or in `get_replies`, is made for the commands of one pipeline on
one connection. It
is fed bytes in any fragmentation, checks them against what was asked, and keeps
what it has understood even when the bytes after that are wrong.

Source: memcached's doc/protocol.txt.
"""

from __future__ import annotations

from django_safecache.exceptions import ProtocolError, ReplyError

MAX_LINE = 2048
"""Bytes of a reply line. The longest that memcached sends are its error lines."""


def get_line(keys: bytes) -> bytes:
    """For `keys` with one space between them."""
    return b"get " + keys + b"\r\n"


def gets_line(keys: bytes) -> bytes:
    """As `get_line`; the replies say what ``cas`` compares as well."""
    return b"gets %b\r\n" % keys


def keys_of(get_line: bytes) -> list[bytes]:
    """The keys that a ``get`` or ``gets`` line asks for."""
    return get_line.split()[1:]


def key_of(line: bytes) -> bytes:
    """The key of a line with one command."""
    return line.split(None, 2)[1]


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
STATS = b"stats\r\n"
MAX_STATS = 1000
"""Figures of one ``stats``; memcached has about a hundred."""
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


class LineReplies:
    """Replies that are lines, one after another. Raises as `GetReplies` does."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come."""
        raise NotImplementedError

    def _understand(self, line: bytes) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take the next bytes from the server, any number of them."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if self.complete:
                raise ProtocolError("bytes after the last reply")
            self._understand(line)
        if self._rest and self.complete:
            raise ProtocolError("bytes after the last reply")
        check_beginning(self._rest)


class StatusReplies(LineReplies):
    """The replies to commands that are answered by one line each.

    `statuses` are the lines so far: ``STORED``, ``NOT_FOUND``, a number...
    """

    def __init__(self, operation: str, count: int) -> None:
        super().__init__()
        self._operation = operation
        self._count = count
        self.statuses: list[bytes] = []

    @property
    def answered(self) -> int:
        return len(self.statuses)

    @property
    def complete(self) -> bool:
        return len(self.statuses) == self._count

    def _understand(self, line: bytes) -> None:
        if not is_status(self._operation, line):
            raise not_understood(line)
        self.statuses.append(line)


class StatsReply(LineReplies):
    """The reply to one ``stats``: `stats` are the figures so far, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.stats: dict[str, str] = {}
        self.answered = 0

    @property
    def complete(self) -> bool:
        return self.answered == 1

    def _understand(self, line: bytes) -> None:
        word, _, said = line.partition(b" ")
        name, _, value = said.partition(b" ")
        if line == b"END":
            self.answered = 1
        elif word == b"STAT" and name and len(line) <= MAX_LINE:
            self._keep(name, value)
        else:
            raise not_understood(line)

    def _keep(self, name: bytes, value: bytes) -> None:
        if len(self.stats) >= MAX_STATS:
            raise ProtocolError(f"more than {MAX_STATS} figures")
        self.stats[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")


def check_beginning(line: bytes) -> None:
    """Raise `ProtocolError` if no line, CR included, can begin like this."""
    if len(line) > MAX_LINE + 1:
        raise ProtocolError(f"more than {MAX_LINE} bytes without an end of line")


def not_understood(line: bytes) -> ReplyError | ProtocolError:
    if len(line) > MAX_LINE:
        return ProtocolError(f"a line of {len(line)} bytes")
    if line == b"ERROR" or line.startswith(
        (b"ERROR ", b"CLIENT_ERROR", b"SERVER_ERROR")
    ):
        return ReplyError(line.decode("utf-8", "replace"))
    return ProtocolError(
        f"a line that is no reply to what was asked ({len(line)} bytes)"
    )

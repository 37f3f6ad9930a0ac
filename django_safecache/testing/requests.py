"""Request lines of memcached's text protocol, read as memcached 1.6 reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django_safecache.testing.numerals import signed, unsigned
from django_safecache.testing.store import CRLF

KEY_MAX_LENGTH = 250
INT_MAX = 2**31 - 1
BAD_FORMAT = "CLIENT_ERROR bad command line format"
STORAGE = frozenset({"set", "add", "replace", "append", "prepend", "cas"})
UNKNOWN = "unknown"

_ANY = 10**9
_WORDS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(STORAGE - {"cas"}, (5, 6)),
    "cas": (6, 7),
    **dict.fromkeys(("get", "gets", "gat", "gats"), (2, _ANY)),
    **dict.fromkeys(("incr", "decr", "touch"), (3, 4)),
    "delete": (2, 4),
    "flush_all": (1, 3),
    "verbosity": (2, 3),
    **dict.fromkeys(("version", "stats", "quit", "mn"), (1, _ANY)),
}
"""How few and how many words a line of each command may have, itself included."""

_ALWAYS_REPLY = frozenset(
    {"get", "gets", "gat", "gats", "version", "stats", "quit", "mn"}
)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a storage line announces; `length` is the value's, without CRLF."""

    key: bytes
    flags: int
    exptime: int
    length: int
    cas: int


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed line. With an `upload`, a body of its length and CRLF follows."""

    name: str
    words: Sequence[bytes]
    noreply: bool = False
    upload: Upload | None = None
    error: str | None = None
    """The answer, if the line is wrong."""


def parse(line: bytes) -> Request:
    """Read one line; its line end is optional. Never raises."""
    words = _split(line)
    name = words[0].decode("latin-1") if words else UNKNOWN
    if name not in _WORDS:
        return Request(UNKNOWN, words, error="ERROR")
    fewest, most = _WORDS[name]
    if not fewest <= len(words) <= most:
        return Request(name, words, error="ERROR")
    noreply = _is_noreply(name, words)
    if name not in STORAGE:
        return Request(name, words, noreply)
    upload = _parse_upload(name, words)
    error = None if upload else BAD_FORMAT
    return Request(name, words, noreply, upload, error)


def _split(line: bytes) -> list[bytes]:
    if line.endswith(b"\n"):
        line = line[:-1]
    # A line of nothing but CR keeps it: memcached does not look that close.
    if line.endswith(b"\r") and len(line) > 1:
        line = line[:-1]
    return [word for word in line.split(b"\0", 1)[0].split(b" ") if word]


def _is_noreply(name: str, words: Sequence[bytes]) -> bool:
    if name in _ALWAYS_REPLY or words[-1] != b"noreply":
        return False
    return len(words) > (2 if name == "delete" else 1)


def _parse_upload(name: str, words: Sequence[bytes]) -> Upload | None:
    flags, exptime, length = unsigned(words[2]), signed(words[3]), signed(words[4])
    cas = unsigned(words[5]) if name == "cas" else 0
    if flags is None or exptime is None or length is None or cas is None:
        return None
    if len(words[1]) > KEY_MAX_LENGTH or not 0 <= length <= INT_MAX - len(CRLF):
        return None
    return Upload(words[1], flags % 2**32, exptime, length, cas)

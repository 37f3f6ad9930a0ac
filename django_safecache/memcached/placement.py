"""Which server holds a key: the same choice as pymemcache's `HashClient` makes.

Rendezvous hashing with MurmurHash3: the server with the highest score of
``"<server>-<key>"`` wins, ties go to the larger name. pymemcache hashes
characters as ``ord(c) & 0xFF``, which is neither UTF-8 nor latin-1; a site that
changes to this package keeps its warm cache only if we do the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import mmh3

DEFAULT_PORT = 11211
BLOCK = 10_000
"""Keys whose servers are found at a time."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens.

    `name` is what placement hashes and every report shows: ``host:port``, IPv6
    without brackets, or the path of a unix socket. `target` is what a socket
    connects to.
    """

    name: str
    target: tuple[str, int] | str


def parse_address(text: object) -> Address:
    """Read one entry of LOCATION, in any form that pymemcache reads.

    ``host``, ``host:port``, ``[v6]:port``, ``v6:port``, ``unix:/path``, ``/path``
    or a ``(host, port)`` pair. Raises `ValueError`, saying what is wrong.
    """
    if isinstance(text, (tuple, list)) and len(text) == 2:
        host, port = text
        return _tcp(str(host), str(port), text)
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a server; expected 'host:port'")
    text = text.strip()
    path = text.removeprefix("unix:")
    if path.startswith("/"):
        return Address(path, path)
    if text.startswith("unix:"):
        raise ValueError(f"{text!r}: a unix socket needs an absolute path")
    return _tcp(*_split_port(text), text)


def _split_port(text: str) -> tuple[str, str]:
    if ":" not in text or text.endswith("]"):
        return text, str(DEFAULT_PORT)
    host, _, port = text.rpartition(":")
    # "::1" has no port although it has colons; "::1:11211" has one.
    if _is_ipv6(text) and not _is_ipv6(host):
        return text, str(DEFAULT_PORT)
    return host, port


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _tcp(host: str, port: str, text: object) -> Address:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or not bare.isprintable() or any(c in bare for c in " []/;,@"):
        raise ValueError(f"{text!r} is not a server: {host!r} is not a host name")
    try:
        bare.encode("idna")
    except UnicodeError as error:
        problem = f"{text!r} is not a server: {host!r} is not a host name, {error}"
        raise ValueError(problem) from error
    if ":" in bare and not _is_ipv6(bare.partition("%")[0]):
        raise ValueError(f"{text!r} is not a server: {host!r} is not an IPv6 address")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: port {port!r} is not a number from 1 to 65535")
    return Address(f"{bare}:{int(port)}", (bare, int(port)))


def _hashed(text: str) -> bytes:
    return bytes([ord(char) & 0xFF for char in text])


class Placement:
    """The choice of one server, by its index, for every key. Immutable.

    With a single server nothing is hashed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # Descending names, and the first of equal scores: the larger name wins.
        self._order = sorted(range(len(names)), key=names.__getitem__, reverse=True)
        self._prefixes = [_hashed(f"{names[index]}-") for index in self._order]
        self._have_line_ends = any(b"\n" in prefix for prefix in self._prefixes)
        self.single = len(names) == 1

    def server_of(self, key: bytes) -> int:
        """The index of the server of `key`, the UTF-8 of a made key."""
        if self.single:
            return 0
        # Not by `servers_of`: the columns of one key take three times as long.
        data = key if key.isascii() else _hashed(key.decode())
        scores = [mmh3.hash(prefix + data, 0, False) for prefix in self._prefixes]
        return self._order[scores.index(max(scores))]

    def servers_of(self, keys: Sequence[bytes]) -> list[int]:
        """The index of the server of each of `keys`."""
        if self.single:
            return [0] * len(keys)
        # Block by block: what is hashed takes as much memory as there are servers.
        blocks = range(0, len(keys), BLOCK)
        found = [self._servers_of(keys[start : start + BLOCK]) for start in blocks]
        return found[0] if len(found) == 1 else list(chain.from_iterable(found))

    def _servers_of(self, keys: Sequence[bytes]) -> list[int]:
        are_ascii = b"".join(keys).isascii()
        if not are_ascii:
            keys = [key if key.isascii() else _hashed(key.decode()) for key in keys]
        no_line_ends = are_ascii and not self._have_line_ends
        named = _joined_and_split if no_line_ends else _one_by_one
        order = self._order
        by_server = [
            map(mmh3.hash, named(prefix, keys), repeat(0), repeat(False))
            for prefix in self._prefixes
        ]
        return [
            order[scores.index(max(scores))] for scores in zip(*by_server, strict=True)
        ]


def _one_by_one(prefix: bytes, keys: Sequence[bytes]) -> list[bytes]:
    """`prefix` before each of `keys`."""
    return [prefix + key for key in keys]


def _joined_and_split(prefix: bytes, keys: Sequence[bytes]) -> list[bytes]:
    """The same, faster, for one key at least, where nothing has a line end: no key that
    is ASCII has one."""
    return (prefix + (b"\n" + prefix).join(keys)).split(b"\n")

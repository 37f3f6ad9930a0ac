"""Python objects to bytes and flags, and back: the formats of pymemcache.

The flags are pymemcache's, so that a fleet can change over one host at a time.
Unlike pymemcache's own, a value that cannot be read back raises: there it comes
back as a hit of None.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from django_safecache.exceptions import UndecodableValueError
from django_safecache.memcached.get_replies import Items, different

BYTES, PICKLE, INTEGER, LONG, TEXT = 0, 1, 2, 4, 16


class Serde(Protocol):
    """What pymemcache calls a serde; any object with these two methods is one."""

    def serialize(self, key: bytes, value: Any) -> tuple[Any, int]: ...

    def deserialize(self, key: bytes, value: bytes, flags: int) -> Any: ...


class PickleSerde:
    """str, int and bytes as themselves, everything else pickled.

    Reads the pickles of whoever can write to the memcached server: as with every
    Django cache, that server must be trusted.
    """

    def __init__(self, pickle_version: int = pickle.HIGHEST_PROTOCOL) -> None:
        self._pickle_version = pickle_version

    def serialize(self, key: bytes, value: Any) -> tuple[bytes, int]:
        """Exact types only: a subclass of str or int keeps its class by pickle."""
        kind = type(value)
        if kind is str:
            return value.encode(), TEXT
        if kind is bytes:
            return value, BYTES
        if kind is int:
            return b"%d" % value, INTEGER
        return pickle.dumps(value, self._pickle_version), PICKLE

    def deserialize(self, key: bytes, value: bytes, flags: int) -> Any:
        """The object, for the flags of any version of pymemcache."""
        if flags == BYTES:
            return value
        if flags & TEXT:
            return value.decode()
        if flags & (INTEGER | LONG):
            return int(value)
        if flags & PICKLE:
            return pickle.loads(value)  # noqa: S301 - the format of every Django cache
        return value


DEFAULT_SERDE = PickleSerde()

_BY_FLAGS: dict[bytes, Callable[[bytes], Any]] = {
    b"0": bytes,
    b"1": pickle.loads,
    b"2": int,
    b"16": bytes.decode,
}


def decode_all(serde: Serde, names: Iterable[Any], items: Items) -> Iterable[Any]:
    """(name, object) of each item; `names` has one for each.

    Raises, while iterated, whatever decoding one of them raises: then take them one by
    one.
    """
    keys, flags, values = items
    decoded: Iterable[Any]
    if type(serde) is not PickleSerde:
        decoded = map(serde.deserialize, keys, values, map(int, flags))
    elif len(different(flags)) == 1:
        decoded = map(_BY_FLAGS[flags[0]], values)
    else:
        decoded = [
            _BY_FLAGS[each](value) for each, value in zip(flags, values, strict=True)
        ]
    return zip(names, decoded, strict=True)


def decode(serde: Serde, key: bytes, flags: bytes, value: bytes) -> Any:
    """`serde`'s object for `value`; raises `UndecodableValueError` if it has none."""
    try:
        if type(serde) is PickleSerde and flags in _BY_FLAGS:
            return _BY_FLAGS[flags](value)
        return serde.deserialize(key, value, int(flags))
    except Exception as error:  # unpickling runs anybody's code
        raise UndecodableValueError(
            f"{type(error).__name__} while decoding a value with flags {int(flags)}"
        ) from error


class Encoded(NamedTuple):
    """The bytes and flags of a value; where a value is expected, taken as it is."""

    data: bytes
    flags: int


def encode(serde: Serde, key: bytes, value: Any) -> tuple[bytes, int]:
    """The bytes and flags of `value`. Whatever `serde` raises is the caller's to
    see: the value is at fault, not the cache."""
    if type(value) is Encoded:
        return value
    data, flags = serde.serialize(key, value)
    if isinstance(data, str):
        data = data.encode()  # pymemcache's own serde gives ints as str
    return data, flags

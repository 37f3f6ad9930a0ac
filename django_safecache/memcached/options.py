"""The OPTIONS of one cache: defaults, meaning and validation, without Django."""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from pymemcache.client.base import KeepaliveOpts

from django_safecache.memcached.serde import DEFAULT_SERDE, Serde

OBSOLETE = {
    "default_noreply": "every command is acknowledged",
    "encoding": "the protocol is ASCII, keys are UTF-8",
    "ignore_exc": "no transport failure reaches the caller",
    "lock_generator": "connections are pooled for threads and tasks alike",
    "pool_idle_timeout": "max_connection_age bounds a connection's life",
    "retry_attempts": "a breaker decides when a server is asked again",
    "retry_timeout": "a breaker decides when a server is asked again",
    "dead_timeout": "a breaker decides when a server is asked again",
    "use_pooling": "connections are always pooled",
}
"""pymemcache's options that have nothing left to decide here, and why. They are
accepted, so that a site changes one line, and reported by a system check."""

RENAMED = {"max_pool_size": "pool_max_size"}

REFUSED = {
    "hasher": "placement is always pymemcache's default, rendezvous hashing",
    "serializer": "pass an object with serialize and deserialize as 'serde'",
    "deserializer": "pass an object with serialize and deserialize as 'serde'",
}

RAISING = (
    "get",
    "get_many",
    "set",
    "set_many",
    "add",
    "delete",
    "delete_many",
    "touch",
)
"""The operations `raise_on_unavailable` may name."""


@dataclass(frozen=True)
class Options:
    """How to talk to memcached. Times are seconds, sizes bytes.

    `timeout` is how long a server may make no progress, `deadline` the most that
    one call may take over all servers, retries included.
    """

    batch_max_bytes: int = 1024
    batch_max_keys: int = 500
    window_bytes: int = 65536
    connect_timeout: float = 0.3
    timeout: float = 0.5
    deadline: float = 1.0
    pool_max_size: int = 64
    max_connection_age: float = 600
    loader_chunk_size: int = 500
    raise_on_unavailable: tuple[str, ...] = ()
    serde: Serde = DEFAULT_SERDE
    no_delay: bool = True
    socket_keepalive: KeepaliveOpts | None = None
    socket_module: ModuleType | None = None
    tls_context: ssl.SSLContext | None = None
    allow_unicode_keys: bool = True
    key_prefix: bytes = b""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Read an OPTIONS dictionary; `ValueError` or `TypeError` names the entry
        that is wrong, what was expected and how to mend it."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name in OBSOLETE:
                continue
            name = RENAMED.get(name, name)
            if name in REFUSED:
                raise ValueError(f"OPTIONS[{name!r}] is not supported: {REFUSED[name]}")
            if name not in known:
                raise ValueError(f"OPTIONS has no {name!r}{_hint(name, known)}")
            values[name] = _READERS.get(name, _as_is)(name, value)
        return cls(**values)


def _hint(name: object, known: set[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {sorted(known)}"


def _as_is(name: str, value: Any) -> Any:
    return value


def _integer(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"OPTIONS[{name!r}] is {value!r}; expected an integer over 0")
    return value


def _seconds(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(
            f"OPTIONS[{name!r}] is {value!r}; expected seconds, a number over 0"
        )
    return float(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"OPTIONS[{name!r}] is {value!r}; expected True or False")
    return value


def _serde(name: str, value: Any) -> Any:
    if not all(callable(getattr(value, m, None)) for m in ("serialize", "deserialize")):
        raise TypeError(
            f"OPTIONS[{name!r}] is {value!r}; expected an object with the methods "
            "serialize(key, value) and deserialize(key, value, flags)"
        )
    return value


def _keepalive(name: str, value: Any) -> Any:
    if not isinstance(value, KeepaliveOpts | None):
        raise TypeError(
            f"OPTIONS[{name!r}] is {value!r}; expected pymemcache's KeepaliveOpts"
        )
    return value


def _tls(name: str, value: Any) -> Any:
    if not isinstance(value, ssl.SSLContext | None):
        raise TypeError(f"OPTIONS[{name!r}] is {value!r}; expected an ssl.SSLContext")
    return value


def _key_prefix(name: str, value: Any) -> bytes:
    prefix = value.encode() if isinstance(value, str) else value
    if not isinstance(prefix, bytes) or any(b <= 0x20 or b == 0x7F for b in prefix):
        raise ValueError(
            f"OPTIONS[{name!r}] is {value!r}; expected text without blanks or "
            "control characters"
        )
    return prefix


def _raising(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not set(value) <= set(RAISING):
        raise ValueError(f"OPTIONS[{name!r}] is {value!r}; expected some of {RAISING}")
    return tuple(value)


_READERS = {
    "batch_max_bytes": _integer,
    "batch_max_keys": _integer,
    "window_bytes": _integer,
    "pool_max_size": _integer,
    "loader_chunk_size": _integer,
    "connect_timeout": _seconds,
    "timeout": _seconds,
    "deadline": _seconds,
    "max_connection_age": _seconds,
    "no_delay": _boolean,
    "allow_unicode_keys": _boolean,
    "serde": _serde,
    "socket_keepalive": _keepalive,
    "tls_context": _tls,
    "key_prefix": _key_prefix,
    "raise_on_unavailable": _raising,
}

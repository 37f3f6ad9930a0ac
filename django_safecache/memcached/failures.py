"""What kind of failure an exception is: translated here and nowhere else."""

from __future__ import annotations

import socket
import ssl

from pymemcache.exceptions import MemcacheError

from django_safecache.exceptions import (
    ConnectionClosedError,
    DeadlineError,
    PoolExhaustedError,
    ProtocolError,
    ReplyError,
    SafeCacheError,
    UndecodableValueError,
)
from django_safecache.memcached.outcomes import FailureKind, Phase

TRANSPORT_ERRORS = (OSError, MemcacheError, SafeCacheError)
"""What may end an exchange. pymemcache wraps no socket errors, and its own are no
`OSError`; anything else that is raised is a bug and is not caught."""

_BY_CLASS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (DeadlineError, "deadline"),
    (PoolExhaustedError, "pool_exhausted"),
    (ConnectionClosedError, "closed"),
    (UndecodableValueError, "undecodable"),
    (ProtocolError, "protocol"),
    (BrokenPipeError, "epipe"),
    (ConnectionResetError, "reset"),
    (ConnectionAbortedError, "reset"),
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timeout"),
    (ssl.SSLZeroReturnError, "closed"),
    (ssl.SSLEOFError, "closed"),
    (socket.gaierror, "unreachable"),
)

_OS_ERRNO = vars(OSError)["errno"].__get__

TOO_LARGE = "object too large"
"""What memcached says, among other words, of a value over its item limit."""


def classify(error: BaseException, phase: Phase) -> FailureKind:
    """The one kind of `error`, from the vocabulary in `outcomes`."""
    if isinstance(error, ReplyError):
        return _classify_reply(error.text)
    for cls, kind in _BY_CLASS:
        if isinstance(error, cls):
            return kind
    if phase == "connect":
        return "unreachable"
    return "closed" if isinstance(error, OSError) else "protocol"


def errno_of(error: BaseException | None) -> int | None:
    """The operating system's number, of 32 bits as columns have; else None.

    Whoever raises an `OSError` may give it any other thing in its place.
    """
    # Not by a property of the site's own, which may do anything.
    errno = _OS_ERRNO(error) if isinstance(error, OSError) else None
    return errno if type(errno) is int and abs(errno) < 2**31 else None


def _classify_reply(text: str) -> FailureKind:
    if "too many open connections" in text.lower():
        return "too_many_connections"
    if TOO_LARGE in text:
        return "too_large"
    return "server_error" if text.startswith("SERVER_ERROR") else "client_error"

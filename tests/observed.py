"""Outcomes and failures as the caches would report them, made by hand."""

from __future__ import annotations

from django_safecache.memcached.outcomes import Failure, Outcome

SERVER = "10.0.0.1:11211"
NOON = 1_768_392_000.0
"""14 January 2026, 12:00 UTC, in seconds since the epoch: the edge of a bucket."""


def make_failure(kind="epipe", **changes):
    values = {
        "server": SERVER,
        "phase": "send",
        "exception": "builtins.BrokenPipeError",
        "errno": 32,
        "text": "[Errno 32] Broken pipe",
        "keys": 1,
        "bytes_sent": 8192,
        "bytes_received": 0,
        "connection_age": 1.5,
        **changes,
    }
    return Failure(kind=kind, **values)


def make_outcome(**changes):
    values = {
        "alias": "default",
        "server": SERVER,
        "operation": "get",
        "keys": (),
        **changes,
    }
    return Outcome(**values)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now

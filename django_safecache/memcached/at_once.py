"""One command on a kept connection, where all goes well.

One line, one packet and one reply need no pipeline, and take half the time without.
Whatever is out of the ordinary is left to a job, which takes over the connection and
what has arrived on it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, NamedTuple

from django_safecache.exceptions import UndecodableValueError
from django_safecache.memcached import protocol
from django_safecache.memcached.command_job import LEAVES_OLD_VALUES
from django_safecache.memcached.connection import JUST_USED, Connection
from django_safecache.memcached.failures import TRANSPORT_ERRORS
from django_safecache.memcached.get_replies import sole_value
from django_safecache.memcached.job import NEVER_RETRIED
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import Outcome
from django_safecache.memcached.serde import Serde, decode
from django_safecache.memcached.server import Server

AT_ONCE_BYTES = 4096
"""Of a command that is sent without looking whether the socket takes it: less than the
smallest buffer of an idle one."""


class Asked(NamedTuple):
    """A line that was sent, and its reply: `data`, perhaps not all, or `error`."""

    server: Server
    connection: Connection
    line: bytes
    started: float
    data: bytes
    error: BaseException | None

    def settle(
        self,
        alias: str,
        operation: str,
        label: Any,
        *,
        found: Collection[Any] = (),
        hits: int = 0,
        misses: int = 0,
        stored: int = 0,
        deleted: int = 0,
    ) -> Outcome:
        """The reply was whole and understood: free the connection, tell what it was."""
        ended = time.monotonic()
        self.connection.in_flight = False
        self.server.pool.give_back(self.connection, ended)
        self.server.breaker.succeeded()
        # By position, which takes half the time of keywords.
        return Outcome(
            alias,
            self.server.name,
            operation,
            (label,),
            found,
            (),
            hits,
            misses,
            0,
            stored,
            deleted,
            0,
            1,
            0,
            0,
            len(self.line),
            len(self.data),
            ended - self.started,
        )


def ask(server: Server, operation: str, line: bytes, options: Options) -> Asked | None:
    """Send `line` and wait for a reply; None if that takes a pipeline, or a new
    connection, or there is no use in it. Raises nothing of the transport."""
    if server.breaker.is_open or len(line) > AT_ONCE_BYTES or server.unwritten.is_due:
        return None
    started = time.monotonic()
    just_used = 0.0 if operation in NEVER_RETRIED else JUST_USED
    connection = server.pool.take_idle(started, just_used)
    if connection is None:
        return None
    data, error = b"", None
    try:
        data = connection.ask(line, min(options.timeout, options.deadline))
    except TRANSPORT_ERRORS as failure:
        error = failure
    except BaseException:  # whoever ends this call: the server may carry it out yet
        if operation in LEAVES_OLD_VALUES:
            server.unwritten.add([protocol.key_of(line)], sent=True)
        raise
    return Asked(server, connection, line, started, data, error)


def found_in(
    data: bytes, wire: bytes, label: Any, serde: Serde
) -> dict[Any, Any] | None:
    """What a whole reply to ``get`` of the key `wire` says: its value by `label`, or
    nothing. None if `data` is not that simple."""
    if data == protocol.MISS:
        return {}
    sole = sole_value(data, wire)
    if sole is None:
        return None
    try:
        return {label: decode(serde, wire, *sole)}
    except UndecodableValueError:  # the job counts it
        return None

"""One socket to one server, opened by pymemcache and used without blocking."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pymemcache.client.base import Client

from django_safecache.exceptions import ConnectionClosedError, DeadlineError
from django_safecache.memcached.connecting import Begun, Resolved, resolve
from django_safecache.memcached.failures import TRANSPORT_ERRORS
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import Address

RECEIVE_SIZE = 126_976
"""Bytes asked of the socket at once. Each time costs as much as 20 values, so: as many
as there can be below the 128 KiB from which malloc maps and unmaps memory for them."""

TLS_RECORD = 16384
"""Bytes handed to TLS at once, one record: of more it tells nothing before it has sent
all, which a server that is slow but alive would not survive."""

JUST_USED = 1.0
"""Seconds after its last use for which a connection need not be looked at before a
command that can be sent again: if it was closed since, that is found out by its use."""

SPIN = 100e-6
"""Seconds for which a reply from this host is waited for without falling asleep. It
comes sooner, as a rule, and to fall asleep and be woken takes as much of the processor,
and longer."""

MOST_SLEEPS = 63
"""Waits that fall asleep at once after one that spun in vain: 1, 3, 7... up to this,
and half as many after one that did not."""

_AT_ONCE = struct.pack("ii", 1, 0)
"""A ``struct linger``: on, for no time."""

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A connection, from `open` to `close`. Used by one call at a time.

    `in_flight` is true while a reply is owed: a connection left in that state
    may hold an earlier call's answer and is never used again.
    """

    # On the class, for the destructor of one whose construction was interrupted.
    _client: Client | None = None
    _resolved: Sequence[Any] = ()
    # Why there is no address: it may take long to find out, and is not asked twice.
    _not_begun: OSError | None = None

    def __init__(self, address: Address, options: Options) -> None:
        self._address = address
        self._options = options
        self._sock: Any = None
        self._tls = False
        self._to_read = select.poll()
        self._to_read_or_write = select.poll()
        self._process = os.getpid()
        self.opened = 0.0
        self.used = 0.0
        self.asked = 0
        """Bytes of the line that `ask` was given last which the kernel took."""
        self.in_flight = False
        self.reused = False
        self.closed = False
        self._is_near = False
        self._sleeps = 0
        self._sleeps_left = 0

    def begin(self) -> Begun | None:
        """Begin to connect to the first address, and return the socket that does, which
        `open` goes on with. None where that has to wait: with TLS, or sockets of the
        site's own, or if it fails at once, which `open` will raise."""
        if self._options.tls_context or self._options.socket_module:
            return None
        try:
            self._resolved = resolve(socket, self._address)
            first = next(iter(self._resolved), None)
            return first.begin() if isinstance(first, Resolved) else None
        except OSError as error:
            self._not_begun = None if self._resolved else error
            return None

    def open(self, until: float) -> None:
        """Connect, with TLS if so set, before the monotonic time `until`, and within
        the connect timeout for each address that the host has. Raises `OSError`."""
        error: OSError | None = None
        if self._not_begun is not None:
            raise self._not_begun
        module = self._options.socket_module or socket
        for resolved in self._resolved or resolve(module, self._address):
            left = until - time.monotonic()
            if left <= 0:
                raise error or DeadlineError("the call's deadline passed")
            timeout = min(left, self._options.connect_timeout)
            self._client = client = self._new_client(resolved, timeout)
            try:
                client._connect()
            except OSError as failure:
                error = failure
                continue
            self._sock = client.sock
            self._sock.setblocking(False)
            self._tls = isinstance(self._sock, ssl.SSLSocket)
            self._is_near = _is_on_this_host(self._sock)
            self._to_read.register(self._sock, select.POLLIN)
            self._to_read_or_write.register(self._sock, select.POLLIN | select.POLLOUT)
            self._resolved = ()
            self.opened = time.monotonic()
            return
        raise error or OSError(f"{self._address.name} has no address")

    def _new_client(self, socket_module: Any, timeout: float) -> Client:
        return Client(
            self._address.target,
            connect_timeout=timeout,
            timeout=self._options.timeout,
            no_delay=self._options.no_delay,
            socket_module=socket_module,
            socket_keepalive=self._options.socket_keepalive,
            tls_context=self._options.tls_context,
        )

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def send(self, data: bytes | memoryview) -> int:
        """Bytes the kernel took; 0 when it takes none now. Raises `OSError`."""
        if self._tls:
            data = data[:TLS_RECORD]
        try:
            return int(self._sock.send(data))
        except WOULD_BLOCK:
            return 0

    def receive(self) -> bytes:
        """What has arrived, at most `RECEIVE_SIZE`; empty when nothing has.

        Raises `OSError`, or `ConnectionClosedError` at the end of the stream.
        """
        try:
            data: bytes = self._sock.recv(RECEIVE_SIZE)
        except WOULD_BLOCK:
            return b""
        if not data:
            raise ConnectionClosedError("the server closed the connection")
        return data

    def has_more(self) -> bool:
        """Whether to receive again at once: the socket would not be reported readable
        for bytes that TLS has already taken from it."""
        return self._tls and self._sock.pending() > 0

    def wait(self, writing: bool, seconds: float) -> int:
        """Wait until there is something to read, or room to write if `writing`.

        Returns what poll(2) says, 0 after `seconds` of nothing.
        """
        poller = self._to_read_or_write if writing else self._to_read
        events = self._spin(poller, seconds) or poller.poll(seconds * 1000)
        return events[0][1] if events else 0

    def _spin(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """What poll(2) says of a server on this host before it is worth falling asleep;
        nothing where that was waited for in vain of late."""
        if not self._is_near:
            return []
        if self._sleeps_left:
            self._sleeps_left -= 1
            return []
        until = time.monotonic() + min(SPIN, seconds)
        while not (events := poller.poll(0)) and time.monotonic() < until:
            pass
        # Late is in vain, too: other threads had the time.
        in_vain = time.monotonic() >= until
        self._sleeps = 2 * self._sleeps + 1 if in_vain else self._sleeps // 2
        self._sleeps_left = self._sleeps = min(self._sleeps, MOST_SLEEPS)
        return events

    def ask(self, line: bytes, seconds: float) -> bytes:
        """Send `line` and return the first bytes of its reply, perhaps not all.

        `line` is small enough for the buffer of an idle socket. Raises as `send` and
        `receive`, and `TimeoutError` after `seconds` of nothing.
        """
        self.in_flight = True
        self.asked = 0
        try:
            self.asked = self._sock.send(line)
        except WOULD_BLOCK:
            raise TimeoutError("timed out") from None
        if self.asked != len(line) or not self.wait(False, seconds):
            raise TimeoutError("timed out")
        return self.receive()

    def is_fresh(self, now: float, max_age: float, just_used: float = 0.0) -> bool:
        """Whether an idle connection can be used again at the monotonic time `now`.

        One that is readable was closed by the server, or holds bytes nobody asked
        for; or else TLS's own, which are no data. One that was used in the last
        `just_used` seconds is not looked at: a server that says something of its own
        accord within that time is not found out, and memcached does not.
        """
        if self.closed or self.in_flight or now - self.opened > max_age:
            return False
        if now - self.used < just_used:
            return True
        if not self._to_read.poll(0):
            return True
        if not self._tls:
            return False
        try:
            return not self.receive()
        except TRANSPORT_ERRORS:
            return False

    def __del__(self) -> None:
        # One that an interrupted call dropped, or that was its parent's before a fork.
        self.close()

    def close(self) -> None:
        """Close the socket. Never raises; closing twice is harmless."""
        client, self._client = self._client, None
        for each in self._resolved:
            if isinstance(each, Resolved):
                each.close()
        if client is not None:
            if self.in_flight and self._process == os.getpid():
                self._drop_unsent()
            client.close()
        # Last: until then it counts as one of the pool's.
        self.closed = True

    def _drop_unsent(self) -> None:
        """Have the kernel forget what it has not delivered yet.

        Else it tries on for minutes after a network failed, and what the caller was
        told is lost is carried out later: after what was written since. Not for the
        socket of a parent process, which may be in use there.
        """
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def _is_on_this_host(sock: Any) -> bool:
    """Whether the other end of `sock` is, as far as its addresses tell."""
    try:
        here, there = sock.getsockname(), sock.getpeername()
        return bool(sock.family == socket.AF_UNIX or here[0] == there[0])
    # It is gone already, or a socket of the site's own, which does not tell.
    except (OSError, AttributeError, TypeError, LookupError):
        return False

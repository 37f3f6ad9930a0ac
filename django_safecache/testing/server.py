"""`LocalMemcached`: a small memcached in this process, for tests and demonstrations."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

from django_safecache.testing.commands import Commands
from django_safecache.testing.connection import Service
from django_safecache.testing.faults import Faults, Injector
from django_safecache.testing.loop import Loop, LoopClosedError
from django_safecache.testing.record import Record
from django_safecache.testing.store import MEBIBYTE, Store

T = TypeVar("T")

_running: WeakSet[LocalMemcached] = WeakSet()


class LocalMemcached:
    """A memcached that speaks the text protocol, and misbehaves when told to.

    It listens on a loopback address or a unix socket only, serves from a daemon
    thread of this process, and is no replacement for memcached: the meta and
    binary protocols are missing, and it is many times slower. All attributes and
    methods are thread-safe::

        with LocalMemcached() as server:
            client = pymemcache.Client(server.address)
            server.faults = Faults(stall=True, only=b"get")

    `port` 0 takes a free one, which is then kept over restarts. `limit_maxbytes`
    bounds the items, of which the least recently used are evicted;
    `item_size_max` bounds one of them. `clock` returns Unix time in seconds and
    lets a test make items expire. Raises ValueError for an address that is not
    loopback, and OSError from `start` if it cannot be bound.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        path: str | os.PathLike[str] | None = None,
        limit_maxbytes: int = 64 * MEBIBYTE,
        item_size_max: int = MEBIBYTE,
        max_connections: int = 1024,
        version: str = "1.6.18",
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if path is not None and port:
            raise ValueError("give a port or the path of a unix socket, not both")
        self.path = None if path is None else os.fspath(path)
        """Where the unix socket is; None for TCP."""
        self.host = "" if self.path is not None else _loopback(host)
        """The loopback address; empty for a unix socket."""
        self.port = port
        """0 for a unix socket, and before the first start with a free port."""
        self._max_connections = max_connections
        self._new_store = partial(Store, limit_maxbytes, item_size_max, clock)
        self._service = Service(
            Commands(self._new_store(), version), Record(), Injector(faults or Faults())
        )
        self._loop: Loop | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        where = self.path or f"{self.host}:{self.port}"
        return f"<LocalMemcached {where} {'running' if self.running else 'stopped'}>"

    def __enter__(self) -> LocalMemcached:
        return self if self.running else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped, refusing or not."""
        return self._loop is not None

    @property
    def address(self) -> str:
        """For Django's LOCATION: ``127.0.0.1:port``, ``[::1]:port``, ``unix:/path``.

        Raises RuntimeError while the port is not known yet.
        """
        if self.path is not None:
            return f"unix:{self.path}"
        if not self.port:
            raise RuntimeError("a LocalMemcached without a port has none until start()")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def start(self, *, keep_items: bool = False) -> LocalMemcached:
        """Bind and serve; connections are accepted when this returns, unless refused.

        The items of before are gone, as after a restart, unless `keep_items`:
        then it was only cut off. Faults stay. Raises RuntimeError if it runs.
        """
        with self._lock:
            if self._loop is not None:
                raise RuntimeError(f"{self!r} was started already")
            if not keep_items:
                self._service.commands.store = self._new_store()
            loop = Loop(self._bind, self._service, self._max_connections)
            if self.path is None:
                self.port = loop.address[1]
            loop.start()
            self._loop = loop
            _running.add(self)
        return self

    def stop(self) -> None:
        """Close the listener and all connections. Stopped already, does nothing."""
        with self._lock:
            loop, self._loop = self._loop, None
            _running.discard(self)
            if loop is None:
                return
            loop.close()
            if self.path is not None:
                _unlink_socket(self.path)

    def drop_connections(self, *, reset: bool = False) -> None:
        """Close the open connections, or reset them, and keep listening."""
        loop = self._loop
        if loop is not None:
            self._call(lambda: loop.drop_connections("reset" if reset else "close"))

    @property
    def faults(self) -> Faults:
        """What goes wrong. Assigning takes effect on the next command read, and
        begins to count ``times``, ``close_at`` and `strikes` anew."""
        return self._service.injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._call(lambda: self._inject(Injector(faults)))

    def _inject(self, injector: Injector) -> None:
        self._service.injector = injector
        if self._loop is not None:
            self._loop.listen(not injector.faults.refuse)

    @property
    def strikes(self) -> int:
        """How often the present faults have struck."""
        return self._call(lambda: self._service.injector.strikes)

    @property
    def commands(self) -> Counter[str]:
        """Request lines by command; those it does not know as ``unknown``."""
        return self._call(lambda: Counter(self._service.record.commands))

    @property
    def lines(self) -> list[bytes]:
        """The latest request lines as received, CRLF included, bodies not."""
        return self._call(lambda: list(self._service.record.lines))

    @property
    def connections_accepted(self) -> int:
        """All of them, those that faults turned away included."""
        return self._call(lambda: self._service.record.connections_accepted)

    @property
    def connections_open(self) -> int:
        loop = self._loop
        return 0 if loop is None else self._call(lambda: loop.connections)

    def clear_record(self) -> None:
        """Forget `commands`, `lines` and `connections_accepted`."""
        self._call(self._service.record.clear)

    def _call(self, function: Callable[[], T]) -> T:
        """Run `function` where nothing else touches the server's state."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(LoopClosedError):
                return loop.call(function)
        return function()

    def _bind(self) -> socket.socket:
        if self.path is not None:
            _unlink_socket(self.path)
            return _bound(socket.AF_UNIX, self.path)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        return _bound(family, (self.host, self.port))

    def _abandon(self) -> None:
        """Let go of everything in a forked child, where no thread serves."""
        loop, self._loop = self._loop, None
        self._lock = threading.Lock()
        if loop is not None:
            loop.abandon()


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(
            f"LocalMemcached has no access control and listens on loopback addresses "
            f"only (127.0.0.1, ::1, localhost), not on {host!r}"
        )
    return str(address)


def _bound(family: int, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _unlink_socket(path: str) -> None:
    """Remove a socket that a server left behind; anything else is left alone."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def _forget_in_child() -> None:
    for server in list(_running):
        server._abandon()
    _running.clear()


# A forked child would keep the connections open that the parent closes.
os.register_at_fork(after_in_child=_forget_in_child)

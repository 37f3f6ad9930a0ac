"""Addresses of servers, and connections to several of them, begun at the same time."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable
from typing import Any

from django_safecache.memcached.placement import Address


class Begun(socket.socket):
    """A socket that began to connect, for whoever will call `connect` on it."""

    has_ended = False
    """Whether it is known what became of it."""

    def connect(self, address: Any) -> None:
        """Raise what connecting came to, if that is no connection. Does not wait."""
        if not self.has_ended:
            raise TimeoutError("timed out")
        error = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))


class Resolved:
    """A socket module in which a host has exactly one address.

    For pymemcache, which tries only the first one of a host, so that ``localhost``
    fails on a machine where it is ``::1`` first and memcached listens on 127.0.0.1.
    """

    def __init__(self, module: Any, info: Any) -> None:
        self._module = module
        self._info = info
        self._begun: Begun | None = None

    def getaddrinfo(self, *_: Any) -> list[Any]:
        return [self._info]

    def socket(self, *args: Any) -> Any:
        begun, self._begun = self._begun, None
        return begun or self._module.socket(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def begin(self) -> Begun | None:
        """The next `socket`, which connects from now on; None if it cannot even begin.
        Raises `OSError`."""
        family, kind, proto, _, address = self._info
        self._begun = begun = Begun(family, kind, proto)
        begun.setblocking(False)
        if begun.connect_ex(address) in (0, errno.EINPROGRESS):
            return begun
        self.close()
        return None

    def close(self) -> None:
        """Close what was begun, if nobody has taken it."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.close()


def resolve(module: Any, address: Address) -> list[Any]:
    """A socket module for each address of the host. Raises `OSError`."""
    if isinstance(address.target, str):
        return [module]
    host, port = address.target
    found = module.getaddrinfo(
        host, port, module.AF_UNSPEC, module.SOCK_STREAM, module.IPPROTO_TCP
    )
    return [Resolved(module, info) for info in found]


def wait_until_ended(sockets: Iterable[Begun], until: float) -> None:
    """Until each of `sockets` is connected or has failed, or the monotonic time."""
    poller = select.poll()
    waiting = {sock.fileno(): sock for sock in sockets}
    for fd in waiting:
        poller.register(fd, select.POLLOUT)
    while waiting and (left := until - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            poller.unregister(fd)
            waiting.pop(fd).has_ended = True

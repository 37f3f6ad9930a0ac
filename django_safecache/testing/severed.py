"""Networks that fail: real sockets whose other end is gone, silent or wrong."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any


class Wire(socket.socket):
    """Our end of a pair of sockets; `peer` is the other, where no server is.

    Whatever is connected to, `connect` does to the pair what `cut` does.
    """

    def __init__(self, cut: Callable[[Wire], None]) -> None:
        ours, self.peer = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.resets = False
        self._cut = cut

    def connect(self, address: Any) -> None:
        self._cut(self)

    def send(self, data: Any, flags: int = 0) -> int:
        if self.resets:
            # A pair tells of a reset only who reads; TCP also who writes.
            self.recv(1)
        return super().send(data, flags)

    def close(self) -> None:
        super().close()
        self.peer.close()


class Severed:
    """A socket module for `Options.socket_module`, with nothing but `Wire` in it.

    Resolves no name and reaches no host.
    """

    def __init__(self, kind: str) -> None:
        self._cut = CUTS[kind]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def getaddrinfo(self, *_: Any) -> list[Any]:
        return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "")]

    def socket(self, *_: Any) -> Wire:
        return Wire(self._cut)


def _gone(wire: Wire) -> None:
    """Closed before anything is sent."""
    wire.peer.close()


def _reset(wire: Wire) -> None:
    """Closed with something unread."""
    wire.send(b"\n")
    wire.peer.close()
    wire.resets = True


def _closed(wire: Wire) -> None:
    """Reads on, but will say nothing."""
    wire.peer.shutdown(socket.SHUT_WR)


def _silent(wire: Wire) -> None:
    """Neither reads nor writes."""


def _saying(line: bytes) -> Callable[[Wire], None]:
    def say(wire: Wire) -> None:
        wire.peer.sendall(line)
        wire.peer.shutdown(socket.SHUT_WR)

    return say


def _failing(number: int) -> Callable[[Wire], None]:
    def fail(_: Wire) -> None:
        raise OSError(number, os.strerror(number))

    return fail


CUTS: dict[str, Callable[[Wire], None]] = {
    "epipe": _gone,
    "reset": _reset,
    "closed": _closed,
    "timeout": _silent,
    "refused": _failing(errno.ECONNREFUSED),
    "unreachable": _failing(errno.ENETUNREACH),
    "too_many_connections": _saying(b"ERROR Too many open connections\r\n"),
    "server_error": _saying(b"SERVER_ERROR out of memory\r\n"),
    "client_error": _saying(b"CLIENT_ERROR bad command line format\r\n"),
    "protocol": _saying(b"HTTP/1.1 400 Bad Request\r\n"),
}
"""What is done to a new `Wire`, by the kind of failure that comes of it."""

"""Socket modules of machines that are not like this one."""

from __future__ import annotations

import errno
import socket
import time


class SmallBuffers:
    """The socket module, with buffers of 16 kB."""

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *args):
        sock = socket.socket(*args)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        return sock


class Fragments:
    """The socket module, whose sockets send so many bytes at a time, one by one."""

    def __init__(self, size):
        self._size = size

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *args):
        size = self._size

        class Fragmenting(socket.socket):
            def send(self, data, flags=0):
                time.sleep(0.001)
                return super().send(data[:size], flags)

        return Fragmenting(*args)


class NoSending:
    """The socket module, whose sockets do not send any more once that is `broken`."""

    broken = False

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *args):
        module = self

        class Breakable(socket.socket):
            def send(self, data, flags=0):
                if module.broken:
                    raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
                return super().send(data, flags)

        return Breakable(*args)

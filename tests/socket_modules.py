"""Socket modules of machines that are not like this one."""

from __future__ import annotations

import errno
import socket
import time


class SocketModule:
    """The socket module; others differ in something."""

    def __getattr__(self, name):
        return getattr(socket, name)


class Deaf:
    """A server of which no more is heard than of a host behind a broken network."""

    def __init__(self):
        # A listener whose queue is full: loopback, and yet no connection comes about.
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.target = listener.getsockname()
        self.address = f"127.0.0.1:{self.target[1]}"
        self._sockets = [listener]
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.target)
            self._sockets.append(filler)

    def close(self):
        for each in self._sockets:
            each.close()


class SmallBuffers(SocketModule):
    """The socket module, with buffers of 16 kB."""

    def socket(self, *args):
        sock = socket.socket(*args)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        return sock


class Fragments(SocketModule):
    """The socket module, whose sockets send so many bytes at a time, one by one."""

    def __init__(self, size):
        self._size = size

    def socket(self, *args):
        size = self._size

        class Fragmenting(socket.socket):
            def send(self, data, flags=0):
                time.sleep(0.001)
                return super().send(data[:size], flags)

        return Fragmenting(*args)


class NoSending(SocketModule):
    """The socket module, whose sockets do not send any more once that is `broken`."""

    broken = False

    def socket(self, *args):
        module = self

        class Breakable(socket.socket):
            def send(self, data, flags=0):
                if module.broken:
                    raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
                return super().send(data, flags)

        return Breakable(*args)

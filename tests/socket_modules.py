"""Socket modules of machines that are not like this one."""

from __future__ import annotations

import socket


class SmallBuffers:
    """The socket module, with buffers of 16 kB."""

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *args):
        sock = socket.socket(*args)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        return sock

"""A kept, blocking socket: what a client without any work of its own would take."""

from __future__ import annotations

import socket

PATIENCE = 120.0
"""Seconds after which a server that says nothing ends the benchmark."""


class RawSocket:
    """Sends bytes and receives a known number of them. Raises `OSError`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(b"")

    def __enter__(self) -> RawSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes, size: int) -> memoryview:
        """Send `request`, receive `size` bytes into a buffer that is used again."""
        if len(self._buffer) != size:
            self._buffer = memoryview(bytearray(size))
        self._socket.sendall(request)
        received = 0
        while received < size:
            count = self._socket.recv_into(self._buffer[received:])
            if not count:
                raise ConnectionError(f"closed after {received} of {size} bytes")
            received += count
        # The same bytes come again: without a timeout Python need not poll first.
        self._socket.settimeout(None)
        return self._buffer

    def ask(self, request: bytes, end: bytes) -> bytes:
        """The answer to `request`, up to the bytes `end`."""
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(request)
        answer = b""
        while not answer.endswith(end):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed before the end of the answer")
            answer += data
        return answer

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
        if PATIENCE_BY_KERNEL is not None:
            # A timeout of Python's costs a poll for each call; the kernel's is free.
            self._socket.settimeout(None)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE_BY_KERNEL
            )

    def __enter__(self) -> RawSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

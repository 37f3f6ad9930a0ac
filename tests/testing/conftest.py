from __future__ import annotations

import contextlib
import socket
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from django_safecache.testing import LocalMemcached


class Peer:
    """A client of bare bytes. Reads fail after five seconds without a byte."""

    def __init__(self, host: str, port: int, path: str | None = None) -> None:
        if path is None:
            self.sock = socket.create_connection((host, port), timeout=5)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(5)
            try:
                self.sock.connect(path)
            except OSError:
                self.sock.close()
                raise

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, length: int) -> bytes:
        """Exactly `length` bytes, or fewer if the server closes before."""
        received = b""
        while len(received) < length:
            data = self.sock.recv(length - len(received))
            if not data:
                break
            received += data
        return received

    def read_to_end(self) -> bytes:
        """All until the server closes; a reset raises ConnectionResetError."""
        received = bytearray()
        while data := self.sock.recv(65536):
            received += data
        return bytes(received)

    def ask(self, line: bytes, length: int) -> bytes:
        self.send(line)
        return self.read(length)

    def talk(self, script: bytes) -> bytes:
        """Send everything, say that this was all, and read all replies.

        If the connection breaks, the name of the error instead.
        """
        try:
            self.send(script)
            self.sock.shutdown(socket.SHUT_WR)
            return self.read_to_end()
        except OSError as error:
            return type(error).__name__.encode()
        finally:
            self.sock.close()


@pytest.fixture
def connect() -> Iterator[Callable[[LocalMemcached], Peer]]:
    peers: list[Peer] = []

    def connect(server: LocalMemcached) -> Peer:
        peers.append(Peer(server.host, server.port, server.path))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.sock.close()


@pytest.fixture
def server() -> Iterator[LocalMemcached]:
    with LocalMemcached() as server:
        yield server


@pytest.fixture(scope="session")
def peer_class() -> type[Peer]:
    return Peer


@pytest.fixture
def memory_within() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Asserts that a block never allocates more than so many bytes at a time."""

    @contextlib.contextmanager
    def memory_within(limit: int) -> Iterator[None]:
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < limit
        finally:
            tracemalloc.stop()

    return memory_within

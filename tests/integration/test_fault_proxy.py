"""The proxy does to a connection what its toxics are named after."""

from __future__ import annotations

import socket
import socketserver
import threading
import time

import pytest
from fault_proxy import FaultProxy
from toxics import (
    HEALTHY,
    Bandwidth,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    from_json,
    to_json,
)

PATIENCE = 10
"""Seconds for what is to happen; a busy machine must not fail a test."""
SHORT = 0.2
"""Seconds in which what is not to happen does not."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it receives; closes after ``bye``."""

    def handle(self) -> None:
        with self.request as connection:
            try:
                while (data := connection.recv(1 << 16)) and data != b"bye":
                    connection.sendall(data)
            except ConnectionError:
                return


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = True


@pytest.fixture(scope="module")
def proxy():
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        host, port = server.server_address
        try:
            with FaultProxy(f"{host}:{port}") as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _healed(proxy):
    yield
    proxy.heal()


@pytest.fixture
def client(proxy):
    with connect(proxy) as client:
        yield client


def connect(proxy):
    host, _, port = proxy.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def echoed(client, data: bytes) -> bytes:
    """`data` as it comes back, or as much as does before the end."""
    client.sendall(data)
    back = b""
    while len(back) < len(data) and (part := client.recv(1 << 16)):
        back += part
    return back


def seconds_for(client, data: bytes) -> float:
    started = time.monotonic()
    assert echoed(client, data) == data
    return time.monotonic() - started


class TestHealthy:
    def test_every_byte_passes_in_order(self, client):
        data = bytes(range(256)) * 2000
        client.settimeout(PATIENCE)
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        back = b""
        while len(back) < len(data):
            back += client.recv(1 << 16)
        sender.join()
        assert back == data

    def test_the_end_passes_too(self, client):
        """The server closes; so does the proxy."""
        client.sendall(b"bye")
        assert client.recv(1) == b""


class TestToxics:
    def test_latency_is_added_each_way(self, proxy, client):
        """On a connection that was there before as well."""
        echoed(client, b"x")
        proxy.apply(Latency(0.1, jitter=0.01))
        assert seconds_for(client, b"x") >= 0.18
        with connect(proxy) as another:
            assert seconds_for(another, b"x") >= 0.18

    def test_bandwidth_is_bounded(self, proxy, client):
        """4 kB at 20 kB a second take a fifth of one."""
        proxy.apply(Bandwidth(20_000))
        assert seconds_for(client, b"x" * 4000) >= 0.19

    def test_slow_close(self, proxy, client):
        """The client does not know yet that the server has closed."""
        proxy.apply(SlowClose(SHORT))
        started = time.monotonic()
        client.sendall(b"bye")
        assert client.recv(1) == b""
        assert time.monotonic() - started >= SHORT

    def test_reset_peer(self, proxy, client):
        """Not an orderly end: the operating system says reset."""
        proxy.apply(ResetPeer())
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    def test_timeout_without_end(self, proxy, client):
        """What was swallowed never comes, and the connection ends once it is over."""
        proxy.apply(Timeout())
        client.sendall(b"lost")
        client.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.settimeout(PATIENCE)
        assert echoed(client, b"x") == b""

    def test_timeout_that_closes(self, proxy, client):
        proxy.apply(Timeout(0.05))
        assert echoed(client, b"lost") == b""

    def test_slicer(self, proxy, client):
        """No packet is larger than it says."""
        proxy.apply(Slicer(10, delay=0.002))
        client.sendall(b"x" * 100)
        assert 0 < len(client.recv(1000)) < 100

    def test_limit_data(self, proxy, client):
        """Replies end in the middle, counted from when it began."""
        echoed(client, b"x" * 500)
        proxy.apply(LimitData(30))
        assert echoed(client, b"y" * 100) == b"y" * 30

    @pytest.mark.parametrize("toxic", [HEALTHY, Latency(1.0, 0.5), Timeout()])
    def test_a_command_says_the_whole_toxic(self, toxic):
        assert from_json(to_json(toxic)) == toxic


class TestCutOff:
    def test_connections_are_reset_and_refused(self, proxy, client):
        """Until it is healed, on the same port."""
        echoed(client, b"x")
        proxy.cut_off()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.heal()
        with connect(proxy) as again:
            assert echoed(again, b"x") == b"x"


class TestServerIsNotThere:
    def test_a_connection_is_closed(self):
        """It is accepted first: a client cannot see past a proxy."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with FaultProxy(f"127.0.0.1:{port}") as proxy, connect(proxy) as client:
            assert client.recv(1) == b""

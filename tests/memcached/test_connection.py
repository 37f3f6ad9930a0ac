from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from socket_modules import SocketModule

from django_safecache.memcached import connection
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import parse_address

SOON, LATE = 1, 0
"""At which look at the socket the reply is there; late: when it is slept for."""


class Elsewhere(SocketModule):
    """The socket module of another host than the server's."""

    def socket(self, *args):
        sock = socket.socket(*args)
        sock.bind(("127.0.0.2", 0))
        return sock


class Without(SocketModule):
    """The socket module, whose sockets have everything but that."""

    def __init__(self, name):
        self._name = name

    def socket(self, *args):
        def missing(_):
            raise AttributeError(self._name)

        return type("Lacking", (socket.socket,), {self._name: property(missing)})(*args)


class Watched:
    """A connection's poller, that has the server reply at a certain look."""

    def __init__(self, poller, reply):
        self._poller = poller
        self._reply = reply
        self.reply_at = LATE
        self.timeouts = []

    def poll(self, timeout):
        self.timeouts.append(timeout)
        if timeout or len(self.timeouts) == self.reply_at:
            self._reply()
        return self._poller.poll(timeout)


@pytest.fixture
def listener(request, tmp_path):
    if getattr(request, "param", "tcp") == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "m"))
        listener.listen()
    with listener:
        yield listener


@pytest.fixture
def wait_for(listener):
    """Opens a connection with such OPTIONS. Gives a function that waits on it for a
    reply that comes so, and tells the seconds of each look at the socket."""
    ends = []

    def opened(**options):
        name = listener.getsockname()
        text = name if isinstance(name, str) else "{}:{}".format(*name)
        client = connection.Connection(parse_address(text), Options(**options))
        client.open(until=1e9)
        end, _ = listener.accept()
        ends.extend([client, end])
        watched = client._to_read = Watched(client._to_read, lambda: end.send(b"x"))

        def wait(reply_at):
            watched.timeouts, watched.reply_at = [], reply_at
            assert client.wait(False, 5)
            assert client.receive() == b"x"
            return [timeout / 1000 for timeout in watched.timeouts]

        return wait

    yield opened
    for each in ends:
        each.close()


class TestWaiting:
    @pytest.fixture(autouse=True)
    def spin(self, monkeypatch):
        """Sets for how many seconds it looks: no reply comes later than 60."""

        def spin(seconds):
            monkeypatch.setattr(connection, "SPIN", seconds)

        spin(60)
        return spin

    @pytest.mark.parametrize("listener", ["tcp", "unix"], indirect=True)
    def test_it_does_not_fall_asleep_for_what_comes_soon_from_this_host(self, wait_for):
        wait = wait_for()
        assert [wait(SOON) for _ in range(9)] == [[0]] * 9

    def test_it_looks_until_it_comes(self, wait_for):
        assert wait_for()(9) == [0] * 9

    def test_it_falls_asleep_for_what_does_not_come_soon(self, wait_for, spin):
        spin(0)
        assert wait_for()(LATE) == [0, 5]

    def test_it_always_does_for_what_comes_from_another_host(self, wait_for):
        wait = wait_for(socket_module=Elsewhere())
        assert [wait(SOON) for _ in range(9)] == [[5]] * 9

    @pytest.mark.parametrize("name", ["family", "getpeername", "getsockname"])
    def test_it_does_for_what_comes_from_nobody_knows_where(self, wait_for, name):
        assert wait_for(socket_module=Without(name))(SOON) == [5]

    @pytest.mark.parametrize("reply_at", [SOON, LATE], ids=["too late", "never"])
    def test_it_does_so_at_once_once_after_it_looked_in_vain(
        self, wait_for, spin, reply_at
    ):
        wait = wait_for()
        spin(0)
        wait(reply_at)
        spin(60)
        assert [wait(SOON), wait(SOON), wait(SOON)] == [[5], [0], [0]]

    def test_where_it_looks_in_vain_it_looks_ever_less_often(self, wait_for, spin):
        """So that it costs nothing where it is of no use."""
        wait = wait_for()
        spin(0)
        assert waits_between_looks(wait, LATE, 400)[:8] == [2, 4, 8, 16, 32, 64, 64, 64]

    def test_where_it_looked_in_vain_it_does_so_ever_more_often_again(
        self, wait_for, spin
    ):
        wait = wait_for()
        spin(0)
        waits_between_looks(wait, LATE, 200)
        spin(60)
        assert waits_between_looks(wait, SOON, 130)[:7] == [32, 16, 8, 4, 2, 1, 1]


def waits_between_looks(wait, reply_at, waits):
    looks = [number for number in range(waits) if wait(reply_at)[0] == 0]
    return [after - before for before, after in pairwise(looks)]

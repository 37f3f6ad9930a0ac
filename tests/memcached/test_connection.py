from __future__ import annotations

import socket
from itertools import pairwise

import pytest
from socket_modules import SocketModule

from django_safecache.memcached import connection
from django_safecache.memcached.connection import MOST_SLEEPS
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
    @pytest.mark.parametrize("listener", ["tcp", "unix"], indirect=True)
    def test_it_does_not_fall_asleep_for_what_comes_soon_from_this_host(self, wait_for):
        wait = wait_for()
        assert [wait(SOON) for _ in range(9)] == [[0]] * 9

    def test_it_looks_until_it_comes(self, wait_for, monkeypatch):
        monkeypatch.setattr(connection, "SPIN", 60)
        assert wait_for()(9) == [0] * 9

    def test_it_does_for_what_does_not(self, wait_for):
        first, *more, last = wait_for()(LATE)
        assert (first, {*more, 0}, last) == (0, {0}, 5)

    def test_it_always_does_for_what_comes_from_another_host(self, wait_for):
        wait = wait_for(socket_module=Elsewhere())
        assert [wait(SOON) for _ in range(9)] == [[5]] * 9

    def test_it_does_so_at_once_once_after_it_looked_in_vain(self, wait_for):
        wait = wait_for()
        wait(LATE)
        assert [wait(SOON), wait(SOON), wait(SOON)] == [[5], [0], [0]]

    def test_where_it_looks_in_vain_it_looks_ever_less_often(self, wait_for):
        """So that it costs nothing where it is of no use."""
        wait = wait_for()
        looked = [turn for turn in range(400) if wait(LATE)[0] == 0]
        after = [turn - before for before, turn in pairwise(looked)]
        assert after[:6] == [2, 4, 8, 16, 32, 64]
        assert set(after[6:]) == {MOST_SLEEPS + 1}

"""The wire under TLS and over unix sockets: the same promises on other sockets.

What distributions ship of memcached has no TLS, so a proxy in a thread ends it. The
certificates are made by trustme, a dependency of the tests.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
import trustme
from cache_server import end
from socket_modules import SmallBuffers

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.testing import Faults, LocalMemcached

PATIENT = {"connect_timeout": 10, "timeout": 20, "deadline": 60}
IN_A_HURRY = {"connect_timeout": 0.3, "timeout": 0.3, "deadline": 1.0}
SLACK = 3.0
"""Seconds that a busy machine may add to what is bounded."""


class TlsProxy:
    """Ends TLS on a loopback port and passes the bytes on; a thread a connection.

    While it waits for one side to take bytes it reads from neither, as memcached does.
    Everything ends with `stop`, and by itself after `PATIENCE` seconds of nothing.
    """

    PATIENCE = 20.0

    def __init__(self, target, context):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._context = context
        self.stalls_handshake = False
        self.cuts_after = None
        """Close a connection after so many bytes of replies."""
        self.says_goodbye = False
        """Close with TLS's close_notify, and not just the socket."""
        self.takes = 65536
        """Bytes that are taken from the client at once."""
        self.pause = 0.0
        """Seconds to sleep after each of them."""
        self.accepted = 0
        self._sockets = {}
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()
        self.drop_connections()

    def drop_connections(self):
        """Close all connections, and wait until they are closed."""
        for thread, sock in list(self._sockets.items()):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self):
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=[sock], daemon=True)
            self._sockets[thread] = sock
            thread.start()

    def _serve(self, sock):
        thread = threading.current_thread()
        try:
            sock.settimeout(self.PATIENCE)
            if self.stalls_handshake:
                while sock.recv(65536):  # until the client gives up
                    pass
                return
            sock = self._context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
            self._sockets[thread] = sock
            sock.do_handshake()
            with socket.create_connection(self._target, self.PATIENCE) as plain:
                self._relay(sock, plain)
        except OSError:  # a client that gives up, or trusts another
            pass
        finally:
            sock.close()
            self._sockets.pop(thread, None)

    def _relay(self, tls, plain):
        poller = select.poll()
        poller.register(tls, select.POLLIN)
        poller.register(plain, select.POLLIN)
        left = float("inf") if self.cuts_after is None else self.cuts_after
        while ready := poller.poll(self.PATIENCE * 1000):
            for fd, _ in ready:
                if fd == tls.fileno():
                    if not self._upstream(tls, plain):
                        return
                    continue
                data = plain.recv(65536)
                tls.sendall(data[: int(min(left, len(data)))])
                left -= len(data)
                if not data or left <= 0:
                    self._hang_up(tls)
                    return

    def _upstream(self, tls, plain):
        while True:
            data = tls.recv(self.takes)
            plain.sendall(data)
            time.sleep(self.pause)
            if not data or not tls.pending():
                return bool(data)

    def _hang_up(self, tls):
        # To close with something unread resets, and may take back what was sent.
        tls.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while tls.recv(65536):
                pass
        if self.says_goodbye:
            tls.setblocking(False)
            tls.unwrap()  # raises, because it does not wait for the client's


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(
    params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def version(request):
    return request.param


def trusting(authority, version=ssl.TLSVersion.TLSv1_3):
    """What a client that trusts `authority` sets as tls_context."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def trusted(authority):
    return trusting(authority)


@pytest.fixture
def proxy(server, server_context):
    with TlsProxy(server.address, server_context) as proxy:
        yield proxy


@pytest.fixture
def local_proxy(local, server_context):
    with TlsProxy(local.address, server_context) as proxy:
        yield proxy


def one_failure(recording):
    """What the last call that asked a server failed of, always the same."""
    asked = [outcome for outcome in recording.outcomes if outcome.operation != "load"]
    failure, *more = asked[-1].failures
    assert failure.kind in FAILURE_KINDS
    assert {each.kind for each in more} <= {failure.kind}
    return failure


class TestTls:
    """Bytes that OpenSSL has taken from the socket are not forgotten in it."""

    @pytest.fixture
    def cache(self, proxy, authority, version, make_cache):
        context = trusting(authority, version)
        return make_cache(proxy.address, tls_context=context, **PATIENT)

    def test_every_call_works(self, cache):
        cache.set("a", "é")
        assert cache.get("a") == "é"
        assert cache.get("missing") is None
        assert cache.add("a", 1) is False
        cache.set("n", 1)
        assert cache.incr("n", 4) == 5
        assert cache.touch("n", 10) is True
        assert cache.set_many({"b": 2, "c": b"\x00"}) == []
        assert cache.get_many(["a", "b", "c", "d"]) == {"a": "é", "b": 2, "c": b"\x00"}
        cache.delete_many(["a", "b"])
        assert cache.delete("c") is True
        assert cache.get_many(["a", "b", "c", "n"]) == {"n": 5}

    def test_campfires_keys_of_5_kb_arrive(self, cache, proxy, campfire_keys):
        """Two megabytes in records of any size, three times on one connection."""
        values = {key: os.urandom(5000) for key in campfire_keys}
        assert cache.set_many(values) == []
        for _ in range(3):
            assert cache.get_many(campfire_keys) == values
        assert proxy.accepted == 1

    def test_values_of_a_megabyte(self, cache, proxy):
        """A command larger than the window and every buffer on the way."""
        values = {f"large-{n}": os.urandom(1_000_000) for n in range(8)}
        assert cache.set_many(values) == []
        assert cache.get_many(values) == values
        assert proxy.accepted == 1

    def test_a_connection_is_kept(self, cache, proxy):
        for n in range(20):
            cache.set("n", n)
            assert cache.get("n") == n
        assert proxy.accepted == 1

    def test_threads_share_the_context(self, cache, campfire_keys):
        values = dict.fromkeys(campfire_keys, "v" * 500)
        cache.set_many(values)
        wrong = []

        def read():
            wrong.extend(1 for _ in range(3) if cache.get_many(values) != values)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []


class TestTlsOfSeveralServers:
    def test_all_are_read_while_they_answer(
        self, trusted, server_context, make_cache, campfire_keys
    ):
        """One with TLS that has more than it shows does not wait for another."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(LocalMemcached()) for _ in range(3)]
            addresses = [
                stack.enter_context(TlsProxy(each.address, server_context)).address
                for each in servers
            ]
            cache = make_cache(addresses, tls_context=trusted, **PATIENT)
            values = {key: os.urandom(5000) for key in campfire_keys}
            assert cache.set_many(values) == []
            assert cache.get_many(campfire_keys) == values
            cache.disconnect_all()


class TestTlsThatFails:
    """A failure of the vocabulary, in bounded time, and never an exception."""

    def assert_unavailable(self, cache, recording):
        """Each kind of call, on a server that nobody can reach."""
        started = time.monotonic()
        assert cache.get("a") is None
        failure = one_failure(recording)
        assert failure.phase == "connect"
        assert cache.get_many(["a", "b"]) == {}
        assert cache.set("a", 1) is None
        assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
        assert cache.add("a", 1) is False
        assert cache.delete("a") is False
        assert len(cache.read_many(["a", "b"]).unavailable) == 2
        assert time.monotonic() - started < 7 * IN_A_HURRY["deadline"] + SLACK
        return failure

    def test_a_certificate_of_an_unknown_authority(self, proxy, make_cache, recording):
        context = trusting(trustme.CA())
        cache = make_cache(proxy.address, tls_context=context, **IN_A_HURRY)
        failure = self.assert_unavailable(cache, recording)
        assert failure.kind == "unreachable"
        assert "certificate verify failed" in failure.text
        assert failure.exception == "ssl.SSLCertVerificationError"

    def test_a_certificate_of_another_host(self, local, authority, make_cache):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("cache.example").configure_cert(context)
        with TlsProxy(local.address, context) as proxy:
            cache = make_cache(
                proxy.address, tls_context=trusting(authority), **IN_A_HURRY
            )
            result = cache.read_many(["a"])
        assert result.unavailable == ["a"]
        assert "IP address mismatch" in result.failures[0].text

    def test_a_server_without_tls(self, server, trusted, make_cache, recording):
        cache = make_cache(server.address, tls_context=trusted, **IN_A_HURRY)
        assert self.assert_unavailable(cache, recording).kind in (
            "unreachable",  # it answered ERROR, which is no TLS
            "closed",
            "reset",
            "timeout",  # it waits for the end of a line
        )

    def test_a_client_without_tls(self, proxy, make_cache, recording):
        cache = make_cache(proxy.address, **IN_A_HURRY)
        assert cache.read_many(["a", "b"]).unavailable == ["a", "b"]
        assert one_failure(recording).kind in ("protocol", "closed", "reset", "epipe")

    def test_a_handshake_that_stalls(self, local_proxy, trusted, make_cache, recording):
        local_proxy.stalls_handshake = True
        cache = make_cache(local_proxy.address, tls_context=trusted, **IN_A_HURRY)
        assert self.assert_unavailable(cache, recording).kind == "timeout"

    def test_a_stalled_handshake_is_bounded_by_the_deadline(
        self, local_proxy, trusted, make_cache
    ):
        local_proxy.stalls_handshake = True
        options = {"connect_timeout": 30, "timeout": 30, "deadline": 0.3}
        cache = make_cache(local_proxy.address, tls_context=trusted, **options)
        started = time.monotonic()
        assert cache.read_many(["a"]).unavailable == ["a"]
        assert time.monotonic() - started < 0.3 + SLACK

    @pytest.mark.parametrize("goodbye", [False, True], ids=["just-closed", "in-order"])
    @pytest.mark.parametrize("cut", [0, 1, 20_000, 100_000])
    def test_a_server_that_closes_in_the_middle(
        self, local_proxy, trusted, make_cache, recording, campfire_keys, cut, goodbye
    ):
        """What arrived before stands, the rest is unavailable, nothing is a miss."""
        values = {key: os.urandom(5000) for key in campfire_keys}
        cache = make_cache(local_proxy.address, tls_context=trusted, **PATIENT)
        assert cache.set_many(values) == []
        cache.disconnect_all()
        local_proxy.cuts_after, local_proxy.says_goodbye = cut, goodbye
        result = cache.read_many(campfire_keys)
        assert len(result.found) == pytest.approx(cut / 5000, abs=3)
        assert result.found.items() <= values.items()
        assert result.missing == []
        assert len(result.found) + len(result.unavailable) == 421
        assert one_failure(recording).kind in ("closed", "reset", "epipe")
        local_proxy.cuts_after = None
        assert cache.get_many(campfire_keys) == values

    def test_a_kept_connection_that_was_closed_is_replaced(
        self, local_proxy, trusted, make_cache, campfire_keys
    ):
        values = dict.fromkeys(campfire_keys, "v" * 100)
        cache = make_cache(local_proxy.address, tls_context=trusted, **PATIENT)
        for _ in range(3):
            assert cache.set_many(values) == []
            local_proxy.drop_connections()
            assert cache.get_many(campfire_keys) == values
            local_proxy.drop_connections()

    def test_a_kept_connection_that_was_closed_costs_no_count(
        self, local_proxy, trusted, make_cache
    ):
        """What is never sent twice is not sent on a connection known to be dead."""
        cache = make_cache(local_proxy.address, tls_context=trusted, **PATIENT)
        cache.set("n", 1)
        local_proxy.drop_connections()
        assert cache.incr("n") == 2

    def test_a_server_that_stalls_under_tls(
        self, local, local_proxy, trusted, make_cache, recording
    ):
        options = {**IN_A_HURRY, "connect_timeout": 10, "deadline": 10}
        cache = make_cache(local_proxy.address, tls_context=trusted, **options)
        cache.set("a", 1)
        local.faults = Faults(stall=True)
        started = time.monotonic()
        assert cache.get("a") is None
        assert time.monotonic() - started < 0.3 + SLACK
        assert one_failure(recording).kind == "timeout"
        local.faults = Faults()
        assert cache.get("a") == 1

    def test_a_large_value_makes_progress_although_slowly(
        self, local_proxy, trusted, make_cache
    ):
        """A timeout without progress is none of the whole: 1 MB in 1.5 seconds."""
        local_proxy.takes, local_proxy.pause = 16384, 0.025
        options = {"connect_timeout": 10, "timeout": 0.75, "deadline": 30}
        small = SmallBuffers()
        cache = make_cache(
            local_proxy.address, tls_context=trusted, socket_module=small, **options
        )
        assert cache.set_many({"large": os.urandom(1_000_000)}) == []


@pytest.fixture
def socket_folder():
    """A path short enough for a socket's name, where memcached's own user may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def unix_local(socket_folder):
    with LocalMemcached(path=socket_folder / "m.sock") as server:
        yield server


@pytest.fixture
def unix_memcached(socket_folder, memcached):
    """The real one; its command is that of the shared one, but for the address."""
    path = socket_folder / "m.sock"
    command = [*memcached._command, "-s", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 5
    while not path.exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    yield f"unix:{path}"
    end(process)


class TestUnixSocket:
    @pytest.fixture(params=["memcached", "local"])
    def address(self, request):
        if request.param == "memcached":
            return request.getfixturevalue("unix_memcached")
        return request.getfixturevalue("unix_local").address

    def test_campfires_keys_of_5_kb_arrive(self, address, make_cache, campfire_keys):
        """A unix socket holds a twentieth of what TCP does."""
        cache = make_cache(address, **PATIENT)
        values = {key: os.urandom(5000) for key in campfire_keys}
        assert cache.set_many(values) == []
        assert cache.get_many(campfire_keys) == values
        cache.delete_many(campfire_keys)
        assert cache.get_many(campfire_keys) == {}

    def test_more_is_in_flight_than_a_unix_socket_holds(
        self, address, make_cache, campfire_keys
    ):
        """It reads while it writes: this hangs a client that does not."""
        cache = make_cache(address, window_bytes=1 << 22, **PATIENT)
        values = {f"key-{n}": b"v" * 2000 for n in range(4000)}
        assert cache.set_many(values) == []
        assert cache.get_many(values) == values

    def test_a_restarted_server_is_not_noticed(
        self, unix_local, make_cache, recording, campfire_keys
    ):
        """The socket file is another one, the kept connection is dead."""
        cache = make_cache(unix_local.address, **PATIENT)
        values = dict.fromkeys(campfire_keys, "v" * 500)
        cache.set_many(values)
        unix_local.stop()
        unix_local.start(keep_items=True)
        assert cache.get_many(campfire_keys) == values
        assert recording.kinds() == []

    def test_a_socket_file_without_a_server_is_refused(
        self, socket_folder, make_cache, recording
    ):
        """As a killed server leaves it."""
        path = socket_folder / "stale.sock"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        cache = make_cache(f"unix:{path}", **IN_A_HURRY)
        assert cache.read_many(["a"]).unavailable == ["a"]
        assert one_failure(recording).kind == "refused"

    def test_no_socket_file_is_unreachable(self, socket_folder, make_cache, recording):
        cache = make_cache(f"unix:{socket_folder / 'none.sock'}", **IN_A_HURRY)
        assert cache.read_many(["a"]).unavailable == ["a"]
        assert one_failure(recording).kind == "unreachable"

    def test_a_server_that_closes_in_the_middle(
        self, unix_local, make_cache, recording, campfire_keys
    ):
        cache = make_cache(unix_local.address, **PATIENT)
        values = dict.fromkeys(campfire_keys, "v" * 500)
        cache.set_many(values)
        cache.disconnect_all()
        unix_local.faults = Faults(close_at=10)
        result = cache.read_many(campfire_keys)
        assert (len(result.found), result.missing) == (
            421 - len(result.unavailable),
            [],
        )
        assert result.unavailable
        assert one_failure(recording).kind == "closed"

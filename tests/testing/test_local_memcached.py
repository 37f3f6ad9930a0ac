from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymemcache import Client, HashClient

from django_safecache.testing import Faults, LocalMemcached

VERSION = b"VERSION 1.6.18\r\n"
STORE = b"set a 0 0 1\r\nx\r\n"
HIT = b"VALUE a 0 1\r\nx\r\nEND\r\n"


class TestAddress:
    def test_a_free_loopback_port_is_taken(self):
        with LocalMemcached() as one, LocalMemcached() as other:
            assert one.port != other.port
            assert one.address == f"127.0.0.1:{one.port}"
            assert (one.host, one.path) == ("127.0.0.1", None)

    def test_without_a_port_there_is_no_address_before_the_start(self):
        with pytest.raises(RuntimeError, match="until start"):
            _ = LocalMemcached().address

    def test_a_port_of_ones_own(self, server, connect):
        port = server.port
        server.stop()
        with LocalMemcached(port) as fixed:
            assert fixed.address == f"127.0.0.1:{port}"
            assert connect(fixed).talk(b"version\r\n") == VERSION

    def test_a_port_in_use_is_an_oserror(self, server):
        with pytest.raises(OSError, match="in use"):
            LocalMemcached(server.port).start()

    def test_a_unix_socket(self, tmp_path, connect):
        path = tmp_path / "memcached.sock"
        with LocalMemcached(path=path) as server:
            assert server.address == f"unix:{path}"
            assert (server.host, server.port, server.path) == ("", 0, str(path))
            assert connect(server).talk(b"version\r\n") == VERSION
        assert not path.exists()

    def test_a_socket_left_behind_is_replaced(self, tmp_path, connect):
        path = tmp_path / "memcached.sock"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        with LocalMemcached(path=path) as server:
            assert connect(server).talk(b"version\r\n") == VERSION

    def test_a_file_that_is_no_socket_is_left_alone(self, tmp_path):
        path = tmp_path / "memcached.sock"
        path.write_text("mine")
        with pytest.raises(OSError, match="in use"):
            LocalMemcached(path=path).start()
        assert path.read_text() == "mine"

    def test_ipv6_loopback(self, connect):
        try:
            server = LocalMemcached(host="::1").start()
        except OSError:
            pytest.skip("no IPv6 here")
        with server:
            assert server.address == f"[::1]:{server.port}"
            assert connect(server).talk(b"version\r\n") == VERSION

    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "", "::", "10.0.0.1", "memcached.example.org", "8.8.8.8"]
    )
    def test_other_addresses_are_refused(self, host):
        with pytest.raises(ValueError, match="listens on loopback addresses only"):
            LocalMemcached(host=host)

    def test_a_port_and_a_path_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="not both"):
            LocalMemcached(1234, path=tmp_path / "memcached.sock")

    @pytest.mark.parametrize("unix", [False, True])
    def test_the_address_suits_pymemcache(self, tmp_path, unix):
        path = tmp_path / "memcached.sock" if unix else None
        with LocalMemcached(path=path) as server:
            client = HashClient([server.address])
            client.set("a", b"x")
            assert client.get_many(["a", "b"]) == {"a": b"x"}
            client.disconnect_all()

    def test_it_tells_where_it_is_and_whether_it_runs(self):
        server = LocalMemcached(port=11999)
        assert repr(server) == "<LocalMemcached 127.0.0.1:11999 stopped>"


class TestLifecycle:
    def test_stop_closes_listener_and_connections(self, connect):
        with LocalMemcached() as server:
            peer = connect(server)
            assert peer.ask(b"version\r\n", 16) == VERSION
        assert peer.read(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert (server.running, server.connections_open) == (False, 0)

    def test_a_restart_has_the_same_port_and_no_items(self, server, connect):
        connect(server).talk(STORE)
        address = server.address
        server.stop()
        server.start()
        assert server.address == address
        assert connect(server).talk(b"get a\r\n") == b"END\r\n"

    def test_cut_off_is_not_restarted(self, server, connect):
        connect(server).talk(STORE)
        server.stop()
        server.start(keep_items=True)
        assert connect(server).talk(b"get a\r\n") == HIT

    def test_it_can_be_restarted_many_times(self, server, connect):
        for _ in range(20):
            server.stop()
            server.start()
            assert connect(server).talk(STORE + b"get a\r\n") == b"STORED\r\n" + HIT

    def test_stopping_twice_is_stopping(self, server):
        server.stop()
        server.stop()
        assert server.running is False

    def test_starting_twice_is_a_mistake(self, server):
        with pytest.raises(RuntimeError, match="was started already"):
            server.start()

    def test_with_takes_a_server_that_runs(self):
        server = LocalMemcached().start()
        with server as same:
            assert same is server
        assert server.running is False

    def test_no_thread_and_no_socket_is_left(self, connect):
        before = threading.active_count(), len(os.listdir("/dev/fd"))
        with LocalMemcached() as server:
            peers = [connect(server) for _ in range(5)]
            for peer in peers:
                assert peer.ask(b"version\r\n", 16) == VERSION
        for peer in peers:
            peer.sock.close()
        assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before

    def test_it_can_be_stopped_while_clients_are_busy(self, connect):
        server = LocalMemcached().start()
        stopping = threading.Event()

        def hammer() -> None:
            while not stopping.is_set():
                with (
                    contextlib.suppress(OSError),
                    contextlib.closing(
                        socket.create_connection((server.host, server.port), 1)
                    ) as sock,
                ):
                    sock.sendall(STORE * 100)
                    sock.recv(100)

        threads = [threading.Thread(target=hammer) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            server.stop()
            server.start()
        stopping.set()
        server.stop()
        for thread in threads:
            thread.join(2)
        assert [thread.is_alive() for thread in threads] == [False] * 4

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_a_forked_child_does_not_keep_connections_open(self, server, connect):
        peer = connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        pid = os.fork()
        if pid == 0:
            signal.pause()
        try:
            server.stop()
            assert peer.read(1) == b""
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class TestRecord:
    def test_lines_are_kept_as_they_came(self, server, connect):
        connect(server).talk(b"get a\r\nset a 0 0 1\r\nx\r\ngets  a \n\r\n")
        assert server.lines == [
            b"get a\r\n",
            b"set a 0 0 1\r\n",
            b"gets  a \n",
            b"\r\n",
        ]

    def test_commands_are_counted_by_name(self, server, connect):
        connect(server).talk(b"get a\r\nget b c\r\nset a 0 0 1\r\nx\r\nnonsense\r\n")
        assert server.commands == {"get": 2, "set": 1, "unknown": 1}

    def test_invented_commands_take_no_memory(self, server, connect):
        script = b"".join(b"c%d\r\n" % number for number in range(1000))
        connect(server).talk(script)
        assert server.commands == {"unknown": 1000}

    def test_the_oldest_lines_go(self, server, connect):
        connect(server).talk(b"mn\r\n" * 10_000 + b"version\r\n")
        lines = server.lines
        assert (len(lines), lines[-1]) == (10_000, b"version\r\n")

    def test_lines_take_a_bounded_number_of_bytes(self, server, connect):
        line = b"get a" + b" " * 500_000 + b"\r\n"
        assert connect(server).talk(line * 20) == b"END\r\n" * 20
        assert len(server.lines) == 8 * 1024 * 1024 // len(line)

    def test_connections_are_counted(self, server, connect):
        for _ in range(3):
            connect(server).talk(b"version\r\n")
        assert server.connections_accepted == 3

    def test_the_record_can_be_cleared_and_survives_a_restart(self, server, connect):
        connect(server).talk(b"get a\r\n")
        server.stop()
        assert server.lines == [b"get a\r\n"]
        server.start()
        assert server.commands == {"get": 1}
        server.clear_record()
        assert (server.commands, server.lines) == ({}, [])
        assert server.connections_accepted == 0

    def test_stats_tell_of_connections_and_bytes(self, server, connect):
        connect(server).talk(b"version\r\n")
        peer = connect(server)
        lines = peer.talk(b"stats\r\n").decode().split("\r\n")
        stats = dict(line.split(" ")[1:] for line in lines if line.startswith("STAT"))
        told = {
            "curr_connections": "1",
            "total_connections": "2",
            "bytes_read": "16",
            "bytes_written": "16",
        }
        assert {name: stats[name] for name in told} == told

    def test_a_clock_of_ones_own_makes_items_expire(self, connect):
        now = [1_700_000_000.0]
        with LocalMemcached(clock=lambda: now[0]) as server:
            connect(server).talk(b"set a 0 60 1\r\nx\r\n")
            assert connect(server).talk(b"get a\r\n") == HIT
            now[0] += 60
            assert connect(server).talk(b"get a\r\n") == b"END\r\n"

    def test_the_version_is_what_one_says(self, connect):
        with LocalMemcached(version="1.6.12") as server:
            assert connect(server).talk(b"version\r\n") == b"VERSION 1.6.12\r\n"


class TestTraffic:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
    def test_fragments_do_not_matter(self, server, connect, size):
        script = STORE + b"get a\r\nset b 0 0 4\r\n\r\n\r\n\r\nincr a 1\r\nget b\r\n"
        whole = connect(server).talk(script)
        peer = connect(server)
        for start in range(0, len(script), size):
            peer.send(script[start : start + size])
        assert peer.talk(b"") == whole

    def test_421_values_of_500_bytes_come_back_whole(self, server):
        values = {f"k{number:075}": b"%d" % number * 125 for number in range(421)}
        with contextlib.closing(Client(server.address)) as client:
            assert client.set_many(values) == []
            assert client.get_many(list(values)) == values

    def test_the_largest_value_survives(self, server, connect):
        value = random.Random(1).randbytes(1_048_516)
        script = b"set k 0 0 1048516\r\n" + value + b"\r\n"
        assert connect(server).talk(script) == b"STORED\r\n"
        reply = b"VALUE k 0 1048516\r\n" + value + b"\r\nEND\r\n"
        assert connect(server).talk(b"get k\r\n") == reply

    def test_connections_beyond_the_limit_are_told_so(self, connect):
        with LocalMemcached(max_connections=2) as server:
            peers = [connect(server) for _ in range(2)]
            for peer in peers:
                assert peer.ask(b"version\r\n", 16) == VERSION
            words = b"ERROR Too many open connections\r\n"
            assert connect(server).read_to_end() == words
            assert peers[0].talk(b"quit\r\n") == b""
            assert connect(server).talk(b"version\r\n") == VERSION

    def test_many_clients_at_once(self, server):
        def count() -> None:
            with contextlib.closing(Client(server.address)) as client:
                for _ in range(100):
                    client.incr("n", 1)

        with contextlib.closing(Client(server.address)) as client:
            client.set("n", "0")
            threads = [threading.Thread(target=count) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert client.get("n") == b"800"


class TestBackPressure:
    def test_a_client_that_does_not_read_is_not_read_from(self, server, connect):
        """And is answered in full when it does, as by memcached."""
        value = b"x" * 500_000
        connect(server).talk(b"set big 0 0 500000\r\n" + value + b"\r\n")
        peer = connect(server)
        peer.sock.setblocking(False)
        line, sent = b"get big\r\n", 0
        while select.select([], [peer.sock], [], 0.2)[1]:
            sent += peer.sock.send(line * 10_000)
        assert connect(server).talk(b"version\r\n") == VERSION
        assert sent < 100_000_000
        assert server.commands["get"] < 100
        peer.sock.settimeout(1)
        reply = b"VALUE big 0 500000\r\n" + value + b"\r\nEND\r\n"
        assert peer.read(len(reply) * 3) == reply * 3

    def test_all_of_a_long_pipeline_is_answered(self, server, connect):
        """Also the part that was read, but waited for replies to be sent."""
        connect(server).talk(b"set big 0 0 500000\r\n" + b"x" * 500_000 + b"\r\n")
        peer = connect(server)
        peer.send(b"get big\r\n" * 100 + b"quit\r\n")
        time.sleep(0.05)
        assert len(peer.read_to_end()) == 100 * 500_027

    def test_delayed_replies_count_as_unsent(self, connect):
        with LocalMemcached(faults=Faults(delay=0.01, only=b"get")) as server:
            connect(server).talk(b"set big 0 0 500000\r\n" + b"x" * 500_000 + b"\r\n")
            peer = connect(server)
            peer.send(b"get big\r\n" * 20)
            assert len(peer.read(20 * 500_027)) == 20 * 500_027

    def test_one_line_may_ask_for_more_than_memory_holds(
        self, server, connect, memory_within
    ):
        connect(server).talk(b"set a 0 0 500000\r\n" + b"x" * 500_000 + b"\r\n")
        peer = connect(server)
        with memory_within(20_000_000):
            peer.send(b"get" + b" a" * 20_000 + b"\r\n")
            assert peer.read(13) == b"VALUE a 0 500"
        peer.sock.close()
        assert connect(server).talk(b"version\r\n") == VERSION


class TestHostileInput:
    def test_a_line_without_end_is_dropped_at_a_mebibyte(self, server, connect):
        peer = connect(server)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            peer.send(b"get " + b"a " * 50_000_000)
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_a_multiget_below_that_is_answered(self, server, connect):
        line = b"get" + (b" " + b"k" * 250) * 4000 + b"\r\n"
        assert connect(server).talk(line) == b"END\r\n"

    def test_a_body_above_the_limit_is_swallowed(self, server, connect, memory_within):
        size = 30_000_000
        script = b"set a 0 0 %d\r\n" % size + b"x" * size + b"\r\nversion\r\n"
        replies = b"SERVER_ERROR object too large for cache\r\n" + VERSION
        with memory_within(2_000_000):
            assert connect(server).talk(script) == replies

    def test_clients_that_leave_in_the_middle_of_things(self, server, connect):
        for script in (b"get a", b"set a 0 0 100\r\nx", b"set a 0 0 9999999\r\nx"):
            peer = connect(server)
            peer.send(script)
            peer.sock.close()
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_a_client_that_resets_while_it_is_answered(self, server, connect):
        connect(server).talk(b"set a 0 0 500000\r\n" + b"x" * 500_000 + b"\r\n")
        peer = connect(server)
        peer.send(b"get a\r\n" * 1000)
        assert peer.read(5) == b"VALUE"
        peer.sock.close()
        assert connect(server).talk(b"version\r\n") == VERSION

    @given(data=st.binary(max_size=3000))
    @settings(
        max_examples=50,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_bytes_leave_it_serving(self, server, connect, data):
        connect(server).talk(data)
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_running_out_of_file_descriptors_passes(self, server, connect):
        peer = connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client:
            client.settimeout(1)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
            try:
                client.connect((server.host, server.port))
                assert peer.ask(b"version\r\n", 16) == VERSION
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            client.sendall(b"version\r\n")
            assert client.recv(16) == VERSION


class TestCommand:
    def run(self, *arguments: str) -> subprocess.Popen[str]:
        module = "django_safecache.testing.local_memcached"
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
    def test_it_tells_its_address_and_serves_until_a_signal(self, ending):
        with self.run("--port", "0") as process:
            host, port = process.stdout.readline().rstrip("\n").split(":")
            assert host == "127.0.0.1"
            with socket.create_connection((host, int(port)), 1) as sock:
                sock.sendall(b"version\r\n")
                assert sock.recv(100) == VERSION
            process.send_signal(ending)
            assert process.communicate(timeout=5) == ("", "")
        assert process.returncode == 0

    def test_a_unix_socket(self, tmp_path):
        path = tmp_path / "memcached.sock"
        with self.run("--unix-socket", str(path)) as process:
            assert process.stdout.readline() == f"unix:{path}\n"
            process.terminate()
            process.communicate(timeout=5)
        assert not path.exists()

    def test_an_address_that_is_not_loopback_is_refused(self):
        with self.run("--listen", "0.0.0.0") as process:
            output, errors = process.communicate(timeout=5)
        assert (process.returncode, output) == (2, "")
        assert "listens on loopback addresses only" in errors

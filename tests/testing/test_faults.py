from __future__ import annotations

import contextlib
import threading
import time

import pytest
from pymemcache import Client
from pymemcache.exceptions import MemcacheUnexpectedCloseError

from django_safecache.testing import Faults, LocalMemcached
from django_safecache.testing.faults import Injector, Marred

VERSION = b"VERSION 1.6.18\r\n"
# As long as the keys of the page this package was written for: 75 to 82 bytes.
KEYS = [
    f"timestamp_messages/{number}/hide_author=false&hide_date=true&last_read=343841341"
    for number in range(343_575_000, 343_575_421)
]


def wait_for_strike(server: LocalMemcached) -> None:
    deadline = time.monotonic() + 1
    while not server.strikes and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.strikes == 1


class TestFaults:
    def test_there_are_none_unless_asked_for(self):
        injector = Injector(Faults())
        assert injector.on_accept() == "serve"
        assert injector.on_command(1) == "run"
        assert injector.drops(b"x" * 9999, 9999) is False
        assert injector.refuses_line(b"x" * 9999) is False
        assert injector.mar([b"END\r\n"]) == Marred([b"END\r\n"])
        assert injector.strikes == 0

    @pytest.mark.parametrize(
        "name",
        [
            "close_at",
            "reset_at",
            "max_unterminated_bytes",
            "max_line_bytes",
            "delay",
            "cut_reply_after",
            "times",
        ],
    )
    def test_a_negative_number_is_refused(self, name):
        with pytest.raises(ValueError, match=f"^{name} must not be negative: -1$"):
            Faults(**{name: -1})

    def test_a_seed_may_be_negative(self):
        assert Faults(garble=-1).garble == -1

    def test_an_unknown_way_to_refuse_a_line_is_refused(self):
        with pytest.raises(ValueError, match="long_line must be"):
            Faults(long_line="hang")

    def test_a_text_prefix_is_refused(self):
        with pytest.raises(TypeError, match="only must be bytes"):
            Faults(only="get")


class TestInjector:
    def test_only_is_a_prefix_or_a_function(self):
        prefix = Injector(Faults(only=b"get"))
        assert [prefix.concerns(x) for x in (b"get a", b"gets a", b"set a")] == [
            True,
            True,
            False,
        ]
        function = Injector(Faults(only=lambda line: line.endswith(b"a")))
        assert [function.concerns(x) for x in (b"get a", b"get b")] == [True, False]

    def test_times_counts_all_faults_together(self):
        injector = Injector(Faults(stall=True, max_line_bytes=10, times=2))
        assert injector.refuses_line(b"x" * 11) is True
        assert injector.on_command(1) == "stall"
        assert injector.on_command(1) == "run"
        assert injector.strikes == 2

    def test_a_limit_is_the_most_that_is_allowed(self):
        injector = Injector(Faults(max_unterminated_bytes=10, max_line_bytes=10))
        assert (injector.drops(b"x" * 10, 10), injector.drops(b"x" * 11, 11)) == (
            False,
            True,
        )
        assert injector.refuses_line(b"12345678\r\n") is False
        assert injector.refuses_line(b"123456789\r\n") is True

    def test_garbling_repeats_itself_and_keeps_the_length(self):
        reply = [b"VALUE a 0 1\r\n", b"x\r\n", b"END\r\n"]
        plain = b"".join(reply)
        runs = [
            [b"".join(injector.mar(reply).chunks) for _ in range(20)]
            for injector in (Injector(Faults(garble=1)), Injector(Faults(garble=1)))
        ]
        assert runs[0] == runs[1]
        assert {len(garbled) for garbled in runs[0]} == {len(plain)}
        changed = [
            sum(a != b for a, b in zip(garbled, plain, strict=True))
            for garbled in runs[0]
        ]
        assert changed == [3] * 20
        assert len(set(runs[0])) == 20

    @pytest.mark.parametrize(
        ("length", "chunks"),
        [(0, []), (2, [b"VA"]), (5, [b"VALUE"]), (6, [b"VALUE", b"E"])],
    )
    def test_a_reply_is_cut_to_the_byte(self, length, chunks):
        injector = Injector(Faults(cut_reply_after=length))
        assert injector.mar([b"VALUE", b"END"]) == Marred(chunks, closes=True)

    def test_no_reply_is_no_strike(self):
        injector = Injector(Faults(delay=1, times=1))
        assert injector.mar([]) == Marred([])
        assert injector.mar([b"OK\r\n"]).delay == 1


class TestUnterminated:
    @pytest.fixture(autouse=True)
    def old_memcached(self, server):
        server.faults = Faults(max_unterminated_bytes=1024)

    def test_a_large_multiget_of_pymemcache_fails(self, server):
        client = Client(server.address)
        lost = (BrokenPipeError, ConnectionResetError, MemcacheUnexpectedCloseError)
        with contextlib.closing(client), pytest.raises(lost):
            client.get_many(KEYS)
        assert (server.strikes, server.lines) == (1, [])

    def test_small_ones_do_not(self, server):
        with contextlib.closing(Client(server.address)) as client:
            client.set("a", b"x")
            assert client.get_many(["a", *KEYS[:11]]) == {"a": b"x"}

    def test_a_client_writing_4096_bytes_a_time_gets_epipe_on_the_third(
        self, server, connect
    ):
        line = b"get " + " ".join(KEYS).encode() + b"\r\n"
        peer = connect(server)
        peer.send(line[:4096])
        wait_for_strike(server)
        peer.send(line[4096:8192])
        time.sleep(0.05)  # the answer to the second write is a reset
        with pytest.raises(BrokenPipeError):
            peer.send(line[8192:12288])
        assert peer.read(1) == b""

    @pytest.mark.parametrize("count", [100, 421])
    def test_a_line_sent_at_once_is_reset(self, server, connect, count):
        peer = connect(server)
        peer.send(b"get " + " ".join(KEYS[:count]).encode() + b"\r\n")
        with pytest.raises(ConnectionResetError):
            peer.read(1)

    @pytest.mark.parametrize("size", [1, 100, 1024])
    def test_1024_bytes_before_the_newline_pass_in_any_fragments(
        self, server, connect, size
    ):
        peer = connect(server)
        line = b"get " + b"k" * 250 + b" a" * 384 + b" a\n"
        assert line.index(b"\n") == 1024
        for start in range(0, len(line), size):
            peer.send(line[start : start + size])
        assert peer.read(5) == b"END\r\n"

    @pytest.mark.parametrize("size", [1025, 5000])
    def test_one_byte_more_does_not_in_any_fragments(self, server, connect, size):
        peer = connect(server)
        line = b" get " + b"k" * 250 + b" a" * 385 + b"\n"
        assert line.index(b"\n") == 1025
        peer.send(line.ljust(5000, b"x")[:size])
        with contextlib.suppress(ConnectionResetError):
            assert peer.read(1) == b""
        assert server.strikes == 1

    def test_pipelined_lines_are_measured_one_by_one(self, server, connect):
        line = b"get " + b"a " * 400 + b"\r\n"
        assert connect(server).talk(line * 50) == b"END\r\n" * 50

    def test_a_body_is_not_a_line(self, server, connect):
        script = b"set a 0 0 9000\r\n" + b"x" * 9000 + b"\r\n"
        assert connect(server).talk(script) == b"STORED\r\n"

    def test_earlier_answers_are_sent(self, server, connect):
        peer = connect(server)
        peer.send(b"version\r\n" + b"x" * 1025)
        assert peer.read_to_end() == VERSION

    def test_a_unix_socket_is_dropped_as_well(self, tmp_path):
        faults = Faults(max_unterminated_bytes=1024)
        path = tmp_path / "memcached.sock"
        lost = (BrokenPipeError, ConnectionResetError, MemcacheUnexpectedCloseError)
        with LocalMemcached(path=path, faults=faults) as server:
            client = Client(server.address)
            with contextlib.closing(client), pytest.raises(lost):
                client.get_many(KEYS)


class TestLongLine:
    def test_it_is_answered_with_an_error_and_the_connection_lives(
        self, server, connect
    ):
        server.faults = Faults(max_line_bytes=100)
        long = b"get " + b"a " * 60 + b"\r\n"
        assert connect(server).talk(b"get a\r\n" + long + b"get b\r\n") == (
            b"END\r\nERROR\r\nEND\r\n"
        )

    def test_or_the_connection_is_closed_in_order(self, server, connect):
        server.faults = Faults(max_line_bytes=100, long_line="close")
        peer = connect(server)
        peer.send(b"get a\r\nget " + b"a " * 60 + b"\r\nget b\r\n")
        assert peer.read_to_end() == b"END\r\n"

    def test_a_large_multiget_of_pymemcache_sees_it_closed(self, server):
        server.faults = Faults(max_line_bytes=16384, long_line="close")
        client = Client(server.address)
        with (
            contextlib.closing(client),
            pytest.raises(MemcacheUnexpectedCloseError),
        ):
            client.get_many(KEYS)

    def test_the_lines_are_recorded_whole(self, server, connect):
        server.faults = Faults(max_line_bytes=100)
        line = b"get " + b"a " * 20_000 + b"\r\n"
        assert connect(server).talk(line) == b"ERROR\r\n"
        assert server.lines == [line]


class TestClosing:
    def test_a_new_connection_is_closed(self, server, connect):
        server.faults = Faults(close_at=0, times=1)
        assert connect(server).read_to_end() == b""
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_a_new_connection_is_reset(self, server, connect):
        server.faults = Faults(reset_at=0)
        with pytest.raises(ConnectionResetError):
            connect(server).read(1)

    @pytest.mark.parametrize(
        ("faults", "end"),
        [(Faults(close_at=3), b""), (Faults(reset_at=3), ConnectionResetError)],
    )
    def test_the_nth_command_is_neither_answered_nor_carried_out(
        self, server, connect, faults, end
    ):
        store = b"set a 0 0 1\r\n%d\r\n"
        server.faults = faults
        peer = connect(server)
        for number in (1, 2):
            assert peer.ask(store % number, 8) == b"STORED\r\n"
        peer.send(store % 3)
        if end == b"":
            assert peer.read_to_end() == b""
        else:
            with pytest.raises(end):
                peer.read(1)
        assert connect(server).talk(b"get a\r\n") == b"VALUE a 0 1\r\n2\r\nEND\r\n"

    def test_pipelined_answers_before_it_arrive(self, server, connect):
        server.faults = Faults(close_at=3)
        peer = connect(server)
        peer.send(b"version\r\n" * 5)
        assert peer.read_to_end() == VERSION * 2

    def test_what_is_unread_does_not_make_a_close_a_reset(self, server, connect):
        server.faults = Faults(close_at=1)
        peer = connect(server)
        peer.send(b"version\r\n" * 4000)
        assert peer.read_to_end() == b""

    def test_commands_are_counted_from_when_the_faults_were_set(self, server, connect):
        peer = connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        server.faults = Faults(close_at=2)
        assert peer.ask(b"version\r\n", 16) == VERSION
        assert peer.ask(b"version\r\n", 16) == b""

    def test_too_many_connections_are_told_so(self, server, connect):
        server.faults = Faults(too_many_connections=True, times=1)
        words = b"ERROR Too many open connections\r\n"
        assert connect(server).read_to_end() == words
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_all_open_connections_can_be_dropped(self, server, connect):
        peers = [connect(server) for _ in range(3)]
        for peer in peers:
            assert peer.ask(b"version\r\n", 16) == VERSION
        server.drop_connections()
        assert [peer.read(1) for peer in peers] == [b"", b"", b""]
        assert server.connections_open == 0

    def test_or_reset(self, server, connect):
        peer = connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        server.drop_connections(reset=True)
        with pytest.raises(ConnectionResetError):
            peer.read(1)


class TestRefusing:
    def test_connections_are_refused_and_established_ones_live(self, server, connect):
        peer = connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        server.faults = Faults(refuse=True)
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert peer.ask(b"version\r\n", 16) == VERSION
        server.faults = Faults()
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_it_can_begin_by_refusing(self, connect):
        with LocalMemcached(faults=Faults(refuse=True)) as server:
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            server.faults = Faults()
            assert connect(server).talk(b"version\r\n") == VERSION

    def test_a_unix_socket_refuses_too(self, tmp_path, connect):
        with LocalMemcached(path=tmp_path / "memcached.sock") as server:
            server.faults = Faults(refuse=True)
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            server.faults = Faults()
            assert connect(server).talk(b"version\r\n") == VERSION

    def test_refusing_twice_is_refusing(self, server, connect):
        server.faults = Faults(refuse=True)
        server.faults = Faults(refuse=True, delay=1)
        with pytest.raises(ConnectionRefusedError):
            connect(server)


class TestStalling:
    def test_it_is_accepted_and_read_but_never_answered(self, server, connect):
        server.faults = Faults(stall=True)
        peer = connect(server)
        peer.sock.settimeout(0.1)
        peer.send(b"version\r\n")
        with pytest.raises(TimeoutError):
            peer.read(1)
        server.faults = Faults()
        peer.send(b"version\r\n")
        with pytest.raises(TimeoutError):
            peer.read(1)

    def test_others_are_served_meanwhile(self, server, connect):
        server.faults = Faults(stall=True, only=b"get")
        stalled, other = connect(server), connect(server)
        stalled.sock.settimeout(0.1)
        stalled.send(b"set a 0 0 1\r\nx\r\nget a\r\nversion\r\n")
        assert stalled.read(8) == b"STORED\r\n"
        with pytest.raises(TimeoutError):
            stalled.read(1)
        assert other.ask(b"version\r\n", 16) == VERSION

    def test_a_stalled_connection_takes_any_amount(
        self, server, connect, memory_within
    ):
        server.faults = Faults(stall=True)
        peer = connect(server)
        peer.send(b"version\r\n")
        data = b"x" * 1_000_000
        with memory_within(1_000_000):
            for _ in range(20):
                peer.send(data)
        peer.sock.close()
        server.faults = Faults()
        assert connect(server).talk(b"version\r\n") == VERSION


class TestAnswering:
    def test_a_line_of_ones_own_takes_the_place_of_the_reply(self, server, connect):
        words = b"SERVER_ERROR out of memory storing object"
        server.faults = Faults(answer=words, only=b"set", times=1)
        script = b"set a 0 0 1\r\nx\r\nget a\r\nset a 0 0 1\r\nx\r\n"
        replies = words + b"\r\nEND\r\nSTORED\r\n"
        assert connect(server).talk(script) == replies


class TestReplies:
    def test_a_cut_reply_ends_in_order_and_the_command_was_carried_out(
        self, server, connect
    ):
        server.faults = Faults(cut_reply_after=3, only=b"set")
        peer = connect(server)
        peer.send(b"version\r\nset a 0 0 1\r\nx\r\nversion\r\n")
        assert peer.read_to_end() == VERSION + b"STO"
        assert connect(server).talk(b"get a\r\n") == b"VALUE a 0 1\r\nx\r\nEND\r\n"

    def test_a_reply_cut_to_nothing_is_a_close(self, server, connect):
        server.faults = Faults(cut_reply_after=0)
        peer = connect(server)
        peer.send(b"version\r\n")
        assert peer.read_to_end() == b""

    def test_replies_are_garbled_as_often_as_asked(self, server, connect):
        server.faults = Faults(garble=7, times=2)
        replies = connect(server).talk(b"version\r\n" * 4)
        assert len(replies) == 4 * len(VERSION)
        assert [replies[i : i + 16] == VERSION for i in range(0, 64, 16)] == [
            False,
            False,
            True,
            True,
        ]

    def test_faults_strike_only_the_commands_asked_for(self, server, connect):
        server.faults = Faults(answer=b"SERVER_ERROR busy", only=b"get ")
        assert connect(server).talk(b"get a\r\ngets a\r\nversion\r\n") == (
            b"SERVER_ERROR busy\r\nEND\r\n" + VERSION
        )

    def test_only_may_look_at_the_whole_line(self, server, connect):
        seen = []
        server.faults = Faults(
            answer=b"ERROR", only=lambda line: seen.append(line) or b" b" in line
        )
        assert connect(server).talk(b"get a\r\nget b\r\n") == b"END\r\nERROR\r\n"
        assert seen == [b"get a", b"get b"]

    def test_a_function_that_fails_costs_its_connection_and_is_logged(
        self, server, connect, caplog
    ):
        server.faults = Faults(only=lambda line: 1 / 0)
        peer = connect(server)
        peer.send(b"version\r\n")
        assert peer.read(1) == b""
        server.faults = Faults()
        assert connect(server).talk(b"version\r\n") == VERSION
        assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]

    def test_a_function_may_use_the_server(self, server, connect):
        """It runs in the server's thread: nothing may wait for that thread."""

        def once(line: bytes) -> bool:
            server.drop_connections()
            server.faults = Faults()
            return bool(server.lines)

        server.faults = Faults(only=once)
        peer = connect(server)
        peer.send(b"version\r\n")
        assert peer.read(1) == b""
        assert connect(server).talk(b"version\r\n") == VERSION


class TestDelay:
    def test_pipelined_replies_wait_together(self, server, connect):
        server.faults = Faults(delay=0.05)
        peer = connect(server)
        began = time.monotonic()
        assert peer.talk(b"version\r\n" * 20) == VERSION * 20
        assert 0.05 <= time.monotonic() - began < 1

    def test_others_do_not_wait(self, server, connect):
        server.faults = Faults(delay=4, only=b"get")
        slow, fast = connect(server), connect(server)
        began = time.monotonic()
        slow.send(b"get a\r\n")
        assert fast.ask(b"version\r\n", 16) == VERSION
        assert time.monotonic() - began < 4

    def test_replies_keep_their_order(self, server, connect):
        server.faults = Faults(delay=0.05, only=b"get")
        script = b"version\r\nget a\r\nversion\r\nget a\r\n"
        replies = VERSION + b"END\r\n" + VERSION + b"END\r\n"
        assert connect(server).talk(script) == replies

    def test_a_client_that_leaves_meanwhile_is_forgotten(self, server, connect):
        server.faults = Faults(delay=0.02)
        peer = connect(server)
        peer.send(b"version\r\n")
        peer.sock.close()
        deadline = time.monotonic() + 1
        while server.connections_open and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.connections_open == 0

    def test_delayed_and_cut(self, server, connect):
        server.faults = Faults(delay=0.02, cut_reply_after=3)
        peer = connect(server)
        peer.send(b"version\r\n")
        assert peer.read_to_end() == b"VER"


class TestChangingFaults:
    def test_it_takes_effect_before_the_assignment_returns(self, server, connect):
        peer = connect(server)
        for number in range(200):
            answer = b"ERROR %d" % number
            server.faults = Faults(answer=answer)
            assert peer.ask(b"version\r\n", len(answer) + 2) == answer + b"\r\n"

    def test_any_thread_may_do_it(self, server, connect):
        def change() -> None:
            for _ in range(50):
                server.faults = Faults(refuse=True)
                server.faults = Faults()

        threads = [threading.Thread(target=change) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.faults == Faults()
        assert connect(server).talk(b"version\r\n") == VERSION

    def test_it_counts_strikes_anew(self, server, connect):
        server.faults = Faults(answer=b"ERROR")
        connect(server).talk(b"version\r\n" * 3)
        assert server.strikes == 3
        server.faults = Faults(answer=b"ERROR")
        assert server.strikes == 0

    def test_faults_set_while_stopped_hold_after_the_start(self, connect):
        server = LocalMemcached()
        server.faults = Faults(answer=b"ERROR")
        with server:
            assert connect(server).talk(b"version\r\n") == b"ERROR\r\n"

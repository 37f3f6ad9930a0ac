from __future__ import annotations

import socket
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.exceptions import ProtocolError, ReplyError
from django_safecache.memcached import protocol
from django_safecache.memcached.get_replies import GetReplies, GetsReplies, Items
from django_safecache.memcached.protocol import (
    MAX_STATS,
    StatsReply,
    StatusReplies,
    get_line,
    gets_line,
)

KEYS = [b"a", b"bb", b"ccc", b"dddd"]
values_strategy = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"END\r\n", b"VALUE a 0 1\r\nx\r\n", b"\r\n", b"END\r\nEND\r\n"]),
)


def reply(items):
    body = b"".join(
        b"VALUE %b %d %d\r\n%b\r\n" % (key, flags, len(value), value)
        for key, flags, value in items
    )
    return body + b"END\r\n"


def feed_in_pieces(replies, data, cuts):
    edges = sorted({0, len(data), *[cut % (len(data) + 1) for cut in cuts]})
    for start, stop in pairwise(edges):
        replies.feed(data[start:stop])


def replies_to(*batches):
    """The parser for lines that ask for these keys, and what it has found."""
    found = Items([], [], [])
    lines = [get_line(b" ".join(batch)) for batch in batches]
    return GetReplies(lines, found.extend), found


class TestLines:
    def test_lines_are_memcacheds(self):
        assert protocol.get_line(b"a b") == b"get a b\r\n"
        assert protocol.store_line(b"set", b"k", 16, -1, b"v\r\n") == (
            b"set k 16 -1 3\r\nv\r\n\r\n"
        )
        assert protocol.delete_line(b"k") == b"delete k\r\n"
        assert protocol.touch_line(b"k", 9) == b"touch k 9\r\n"
        assert protocol.arithmetic_line(b"incr", b"k", 2) == b"incr k 2\r\n"


class TestGetReplies:
    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from(KEYS), values_strategy),
                max_size=4,
                unique_by=lambda item: item[0],
            ),
            min_size=1,
            max_size=5,
        ),
        st.lists(st.integers(0, 1 << 16), max_size=30),
    )
    def test_any_fragmentation_gives_the_same_items(self, lines, cuts):
        """Also for values that look like protocol: the length decides."""
        sent = [sorted((key, 16, value) for key, value in line) for line in lines]
        replies, found = replies_to(*[KEYS] * len(lines))
        feed_in_pieces(replies, b"".join(map(reply, sent)), cuts)
        assert replies.complete
        assert found.rows() == [
            (key, b"16", value) for line in sent for key, _, value in line
        ]

    @given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
    def test_garbage_is_an_error_or_incomplete_but_nothing_else(self, data, cuts):
        """Whatever arrives, no other exception and no item for a foreign key."""
        replies, found = replies_to([b"a"], [b"bb"])
        with suppress(ProtocolError, ReplyError):
            feed_in_pieces(replies, data, cuts)
        assert set(found.keys) <= {b"a", b"bb"}

    @given(st.integers(0, 60), st.integers(0, 255))
    def test_one_wrong_byte_never_gives_a_value_to_another_key(self, place, byte):
        """A flipped byte in a header is an error, or a miss of bytes: never a swap."""
        data = bytearray(reply([(b"a", 0, b"AAAA")]) + reply([(b"bb", 0, b"BBBB")]))
        data[place % len(data)] = byte
        replies, found = replies_to([b"a"], [b"bb"])
        with suppress(ProtocolError, ReplyError):
            replies.feed(bytes(data))
        for key, _, value in found.rows():
            wrong = {b"a": b"B", b"bb": b"A"}[key]
            assert wrong not in value.replace(bytes([byte]), b"")

    def test_what_came_before_an_error_line_stands(self):
        replies, found = replies_to([b"a"], [b"bb"])
        with pytest.raises(ReplyError, match="SERVER_ERROR out of memory"):
            replies.feed(reply([(b"a", 0, b"1")]) + b"SERVER_ERROR out of memory\r\n")
        assert found.rows() == [(b"a", b"0", b"1")]
        assert replies.answered == 1

    def test_a_value_of_a_later_line_is_refused(self):
        """The answers of two calls, or two lines, cannot be mixed up."""
        with pytest.raises(ProtocolError, match="key that was not asked"):
            replies_to([b"a"], [b"bb"])[0].feed(reply([(b"bb", 0, b"1")]))

    def test_a_proxy_may_answer_a_line_in_another_order(self):
        replies, _ = replies_to(KEYS)
        replies.feed(reply([(b"ccc", 0, b"3"), (b"a", 0, b"1")]))
        assert replies.complete

    @pytest.mark.parametrize(
        "data",
        [
            b"VALUE a 0 -1\r\n\r\nEND\r\n",
            b"VALUE a x 1\r\n1\r\nEND\r\n",
            b"VALUE a 0 1_0\r\n1\r\nEND\r\n",
            b"VALUE a 0 99999999999\r\n",
            b"VALUE a 0 99999999999999999999\r\n",
            b"VALUE a 0 00000000001\r\nx\r\nEND\r\n",
            b"XALUE a 0 1\r\nx\r\nEND\r\n",
            b"VALUE a 0 1073741825\r\n",
            b"VALUE a 0 3\r\n12345\r\nEND\r\n",
            b"VALUE a 0\r\n",
            b"STORED\r\n",
            b"\r\n",
            b"END\r\nEND\r\n",
            b"END\r\nleft over",
            b"END\r\n" + b"VALUE a 0 1\r\n1\r\n",
            b"END\r\n" + 3 * b"VALUE a 0 1\r\n1\r\n" + b"END\r\n",
            b"x" * (protocol.MAX_LINE + 2),
        ],
    )
    def test_bytes_that_are_no_reply_are_a_protocol_error(self, data):
        with pytest.raises(ProtocolError):
            replies_to([b"a"])[0].feed(data)

    def test_a_large_value_in_small_pieces_is_joined_once(self):
        """A megabyte in 2,000 pieces: the parser waits until it is whole."""
        value = b"v" * 1_000_000
        replies, found = replies_to([b"a"])
        data = reply([(b"a", 0, value)])
        for start in range(0, len(data), 500):
            replies.feed(data[start : start + 500])
        assert found.rows() == [(b"a", b"0", value)]


class TestGetsReplies:
    @given(
        st.lists(st.tuples(values_strategy, st.integers(0, 2**64 - 1)), max_size=4),
        st.lists(st.integers(0, 1 << 16), max_size=30),
    )
    def test_values_and_uniques_in_any_fragmentation(self, said, cuts):
        data, items = b"", list(zip(KEYS, said, strict=False))
        for key, (value, unique) in items:
            head = b"VALUE %b 16 %d %d\r\n" % (key, len(value), unique)
            data += head + value + b"\r\n"
        found = Items([], [], [])
        replies = GetsReplies([gets_line(b" ".join(KEYS))], found.extend)
        feed_in_pieces(replies, data + b"END\r\n", cuts)
        assert replies.complete
        assert found.rows() == [(key, b"16", value) for key, (value, _) in items]
        assert replies.uniques == {k: b"%d" % unique for k, (_, unique) in items}

    @pytest.mark.parametrize(
        "head", [b"VALUE a 0 1", b"VALUE a 0 1 x", b"VALUE a 0 1 "]
    )
    def test_a_value_without_a_unique_is_a_protocol_error(self, head):
        replies = GetsReplies([gets_line(b"a")], lambda items: None)
        with pytest.raises(ProtocolError):
            replies.feed(head + b"\r\n1\r\nEND\r\n")


class TestStatsReply:
    @given(st.lists(st.integers(0, 200), max_size=9))
    def test_figures_in_any_fragmentation(self, cuts):
        data = b"STAT pid 1\r\nSTAT version 1.6.18 x\r\nSTAT empty \r\nEND\r\n"
        reply = StatsReply()
        feed_in_pieces(reply, data, cuts)
        assert reply.complete
        assert reply.stats == {"pid": "1", "version": "1.6.18 x", "empty": ""}

    @pytest.mark.parametrize(
        "data",
        [
            b"VALUE a 0 1\r\n",
            b"STAT\r\n",
            b"STAT a 1\r\nEND\r\nSTAT b 1\r\n",
            b"END\r\nleft over",
            b"x" * (protocol.MAX_LINE + 2),
            b"".join(b"STAT n%d 1\r\n" % n for n in range(MAX_STATS + 1)),
        ],
    )
    def test_anything_else_is_a_protocol_error(self, data):
        with pytest.raises(ProtocolError):
            StatsReply().feed(data)

    def test_an_error_line_is_the_servers(self):
        with pytest.raises(ReplyError, match="ERROR"):
            StatsReply().feed(b"ERROR\r\n")

    def test_a_real_server_is_understood(self, server):
        """`stats` and `gets`, as they are sent."""
        host, port = server.address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"set a 0 0 1\r\nx\r\n")
            assert connection.recv(100) == b"STORED\r\n"
            reply = StatsReply()
            connection.sendall(protocol.STATS)
            while not reply.complete:
                reply.feed(connection.recv(4096))
            assert int(reply.stats["curr_items"]) >= 1
            found = Items([], [], [])
            replies = GetsReplies([gets_line(b"a none")], found.extend)
            connection.sendall(gets_line(b"a none"))
            while not replies.complete:
                replies.feed(connection.recv(4096))
            assert found.rows() == [(b"a", b"0", b"x")]
            assert replies.uniques[b"a"].isdigit()


class TestStatusReplies:
    def test_statuses_in_any_fragmentation(self):
        replies = StatusReplies("delete", 2)
        for byte in b"DELETED\r\nNOT_FOUND\r\n":
            assert not replies.complete
            replies.feed(bytes([byte]))
        assert replies.complete
        assert replies.statuses == [b"DELETED", b"NOT_FOUND"]

    def test_numbers_for_incr(self):
        replies = StatusReplies("incr", 1)
        replies.feed(b"18446744073709551615\r\n")
        assert replies.statuses == [b"18446744073709551615"]

    @pytest.mark.parametrize(
        ("operation", "line"),
        [
            ("set", b"DELETED"),
            ("delete", b"12"),
            ("incr", b"1 2"),
            ("incr", b"-1"),
            ("touch", b"STORED"),
            ("set", b""),
            ("incr", b"1" * 21),
            ("set", b"VALUE a 0 1"),
        ],
    )
    def test_an_answer_to_another_command_is_a_protocol_error(self, operation, line):
        with pytest.raises(ProtocolError):
            StatusReplies(operation, 1).feed(line + b"\r\n")

    @pytest.mark.parametrize(
        "line",
        [
            b"ERROR",
            b"ERROR Too many open connections",
            b"CLIENT_ERROR bad",
            b"SERVER_ERROR x",
        ],
    )
    def test_an_error_line_is_told_in_the_servers_words(self, line):
        replies = StatusReplies("set", 2)
        with pytest.raises(ReplyError, match=line.decode()):
            replies.feed(b"STORED\r\n" + line + b"\r\n")
        assert replies.statuses == [b"STORED"]

    def test_more_answers_than_commands_are_a_protocol_error(self):
        with pytest.raises(ProtocolError):
            StatusReplies("set", 1).feed(b"STORED\r\nSTORED\r\n")

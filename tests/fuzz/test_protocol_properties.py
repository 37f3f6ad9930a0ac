"""The fuzz target's properties without the fuzzer: its corpus, and hypothesis."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.protocol_properties import (
    BYTE_BY_BYTE,
    LINES,
    OPERATIONS,
    check,
    check_input,
)
from fuzz.replies import items, streams
from hypothesis import example, given
from hypothesis import strategies as st

from django_safecache.memcached.protocol import MAX_LINE

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())

cuts = st.lists(st.integers(0, 1 << 16), max_size=7)


class TestCorpus:
    @pytest.mark.parametrize("path", CORPUS, ids=[path.name for path in CORPUS])
    def test_every_property_holds_of_it(self, path):
        check_input(path.read_bytes())

    def test_there_is_one_of_each_kind(self):
        kinds = {path.name.partition("-")[0] for path in CORPUS}
        assert kinds == {"get", "status", "error", "wrong"}

    def test_good_replies_are_understood_to_the_end(self):
        """Or the fuzzer would start from nothing but errors."""
        reply = (Path(__file__).parent / "corpus" / "get-three-lines").read_bytes()
        assert reply.count(b"END\r\n") == len(LINES)


class TestProperties:
    """Only documented errors, no foreign key, the same however it is cut, and no more
    bytes held than were fed."""

    @given(st.binary(max_size=400))
    def test_of_any_bytes(self, data):
        check_input(data)

    @given(st.sampled_from(OPERATIONS), streams, cuts)
    @example("get", b"END\r\n" * len(LINES) + b"ERROR\r\n", [])
    @example("set", b"STORED\r\n" * 3 + b"SERVER_ERROR x\r\n", [])
    @example("set", b"SERVER_ERROR " + b"x" * MAX_LINE + b"\r\n", [])
    @example("version", b"VERSION " + b"x" * MAX_LINE + b"\r\n", [])
    @example("get", b"VALUE a " + b"0" * MAX_LINE + b" 1\r\nx\r\n", [])
    @example("get", b"VALUE a 0 0\r\nEND\r\n", [])
    @example("get", b"VALUE a 0 8\r\nx\r\nEND\r\n", [])
    @example("version", b"VERSION 1\r\nVERSION 2\r\n", [])
    def test_of_what_looks_like_replies(self, operation, data, places):
        check(operation, data, places)

    @given(st.lists(items, max_size=3), cuts, st.integers(0, BYTE_BY_BYTE))
    def test_of_values_larger_than_a_line(self, before, places, size):
        """A value of any size, behind others and cut anywhere."""
        large = b"VALUE a 16 %d\r\n%b\r\nEND\r\n" % (size, b"v" * size)
        check("get", b"".join(before) + large, places)

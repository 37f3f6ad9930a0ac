from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymemcache.client.hash import HashClient

from django_safecache.memcached.placement import (
    BLOCK,
    Address,
    Placement,
    parse_address,
)

THREE = ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"]
MIXED = ["/run/mc.sock", "::1:11211", "localhost:11211"]


class TestPlacement:
    @pytest.mark.parametrize(
        ("names", "key", "winner"),
        [
            (THREE, ":1:a", "10.0.0.1:11211"),
            (THREE, ":1:user:42", "10.0.0.1:11211"),
            (THREE, "prefix:2:é", "10.0.0.2:11211"),
            (THREE, ":1:漢字", "10.0.0.3:11211"),
            (MIXED, ":1:a", "localhost:11211"),
        ],
    )
    def test_golden_vectors(self, names, key, winner):
        """Servers chosen by pymemcache 4.0.0, written down."""
        assert names[Placement(names).server_of(key.encode())] == winner

    @given(
        st.lists(st.sampled_from([*THREE, *MIXED, "x:1", "xé:2"]), min_size=1),
        st.text(
            st.characters(min_codepoint=0x21, exclude_categories=["Cs", "Z"]),
            min_size=1,
            max_size=60,
        ),
    )
    def test_every_key_stays_where_pymemcache_puts_it(self, names, key):
        """A site that changes over keeps its warm cache."""
        unique = list(dict.fromkeys(names))
        reference = HashClient([])
        for name in unique:
            reference.hasher.add_node(name)
        chosen = unique[Placement(unique).server_of(key.encode())]
        assert chosen == reference.hasher.get_node(key)

    @pytest.mark.parametrize("names", [THREE, [*THREE[:2], "\u010a.example:1"]])
    @pytest.mark.parametrize("marks", ["", "\xe9", "\u6f22"])
    def test_many_keys_are_placed_as_each_alone(self, names, marks):
        """More than are placed at a time; a name may be hashed with a line end."""
        placement = Placement(names)
        count = BLOCK + 50 if names is THREE else 100
        keys = [f":1:{mark}{n}".encode() for n in range(count) for mark in ["", *marks]]
        servers = placement.servers_of(keys)
        assert set(servers) == {0, 1, 2}
        assert servers == [placement.server_of(key) for key in keys]

    def test_memory_is_constant_in_the_number_of_servers(self):
        """But for the answer, which takes 8 bytes a key."""
        placement = Placement([f"10.0.0.{n}:11211" for n in range(10)])
        keys = [f":1:user:{n}".encode() for n in range(8 * BLOCK)]
        tracemalloc.start()
        placement.servers_of(keys)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300 * len(keys)

    def test_no_keys_have_no_servers(self):
        assert Placement(THREE).servers_of([]) == []
        assert Placement(["a:1"]).servers_of([]) == []


class TestParseAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("10.0.0.1", Address("10.0.0.1:11211", ("10.0.0.1", 11211))),
            (" 10.0.0.1:7 ", Address("10.0.0.1:7", ("10.0.0.1", 7))),
            (
                "cache.example:11211",
                Address("cache.example:11211", ("cache.example", 11211)),
            ),
            ("[::1]:7", Address("::1:7", ("::1", 7))),
            ("[::1]", Address("::1:11211", ("::1", 11211))),
            ("::1:11211", Address("::1:11211", ("::1", 11211))),
            ("::1", Address("::1:11211", ("::1", 11211))),
            ("unix:/run/m.sock", Address("/run/m.sock", "/run/m.sock")),
            ("/run/m.sock", Address("/run/m.sock", "/run/m.sock")),
            (("localhost", 7), Address("localhost:7", ("localhost", 7))),
        ],
    )
    def test_every_form_pymemcache_reads(self, text, address):
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ":11211",
            "host:",
            "host:port",
            "host:0",
            "host:65536",
            "host:-1",
            "a b:1",
            "http://host:11211",
            "user@host:1",
            "unix:relative",
            "fe80::zz:1",
            "[::1",
            7,
            None,
            ("a", "b", "c"),
            "host:²",
            "cache..internal:1",
            f"{'x' * 64}.internal:1",
        ],
    )
    def test_anything_else_is_refused_by_name(self, text):
        with pytest.raises(ValueError, match=r"expected|is not a server|port|socket"):
            parse_address(text)

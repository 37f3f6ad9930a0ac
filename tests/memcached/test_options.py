from __future__ import annotations

import pymemcache.serde
import pytest

from django_safecache.memcached.options import OBSOLETE, Options


class TestDefaults:
    def test_are_those_of_the_readme(self):
        options = Options.parse({})
        assert (options.batch_max_bytes, options.batch_max_keys) == (1024, 500)
        assert options.window_bytes == 65536
        assert (options.connect_timeout, options.timeout, options.deadline) == (
            0.3,
            0.5,
            1.0,
        )
        assert (options.pool_max_size, options.max_connection_age) == (64, 600)
        assert options.no_delay is True


class TestPymemcachesOptions:
    def test_django_s_documented_example_is_accepted(self):
        options = Options.parse(
            {
                "no_delay": True,
                "ignore_exc": True,
                "max_pool_size": 4,
                "use_pooling": True,
            }
        )
        assert options.pool_max_size == 4

    @pytest.mark.parametrize("name", sorted(OBSOLETE))
    def test_what_has_nothing_to_decide_is_accepted(self, name):
        assert Options.parse({name: 1}).timeout == 0.5

    def test_a_serde_is_used(self):
        serde = pymemcache.serde.compressed_serde
        assert Options.parse({"serde": serde}).serde is serde

    def test_a_text_prefix_becomes_bytes(self):
        assert Options.parse({"key_prefix": "é:"}).key_prefix == "é:".encode()


class TestBadOptions:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                {"batch_max_byte": 9},
                "OPTIONS has no 'batch_max_byte'; did you mean 'batch_max_bytes'?",
            ),
            (
                {"batch_max_bytes": 0},
                "OPTIONS['batch_max_bytes'] is 0; expected an integer over 0",
            ),
            (
                {"batch_max_keys": True},
                "OPTIONS['batch_max_keys'] is True; expected an integer over 0",
            ),
            (
                {"timeout": None},
                "OPTIONS['timeout'] is None; expected seconds, a number over 0",
            ),
            (
                {"deadline": float("inf")},
                "OPTIONS['deadline'] is inf; expected seconds, a number over 0",
            ),
            (
                {"timeout": -1},
                "OPTIONS['timeout'] is -1; expected seconds, a number over 0",
            ),
            (
                {"no_delay": "yes"},
                "OPTIONS['no_delay'] is 'yes'; expected True or False",
            ),
            (
                {"hasher": object},
                "OPTIONS['hasher'] is not supported: placement is always pymemcache's "
                "default, rendezvous hashing",
            ),
        ],
    )
    def test_the_message_names_the_entry_and_what_is_expected(self, given, message):
        with pytest.raises((ValueError, TypeError)) as raised:
            Options.parse(given)
        assert str(raised.value) == message

    @pytest.mark.parametrize(
        "given",
        [
            {"serde": object()},
            {"socket_keepalive": 1},
            {"tls_context": 1},
            {"key_prefix": "a b"},
            {"key_prefix": 1},
            {"raise_on_unavailable": "add"},
            {"raise_on_unavailable": ["incr"]},
        ],
    )
    def test_wrong_types_are_refused(self, given):
        (name,) = given
        with pytest.raises((ValueError, TypeError), match=name):
            Options.parse(given)

from __future__ import annotations

import re

import pytest

from django_safecache.loaders import Registry, cache_loader, load, registry, served

NOBODY = "127.0.0.1:1"


def loader_a(keys):
    return dict.fromkeys(keys, "a")


def loader_b(keys):
    return dict.fromkeys(keys, "b")


class Marshal:
    """A serde that says of anything that it is a pickle."""

    def serialize(self, key, value):
        return value, 1

    def deserialize(self, key, value, flags):
        return value


class TestRegistry:
    def test_the_longest_prefix_wins(self):
        loaders = Registry()
        loaders.register("text", loader_a)
        loaders.register("text_messages/", loader_b)
        assert loaders.loader_of("text_messages/1") is loader_b
        assert loaders.loader_of("text_other") is loader_a
        assert loaders.loader_of("other") is None

    def test_an_expression_serves_what_no_prefix_does(self):
        loaders = Registry()
        loaders.register(re.compile(r"\w+_messages/\d+"), loader_a)
        loaders.register("text_messages/", loader_b)
        assert loaders.loader_of("kick_messages/12") is loader_a
        assert loaders.loader_of("text_messages/12") is loader_b
        assert loaders.loader_of("x kick_messages/12") is None

    def test_keys_that_are_no_text_are_matched_as_text(self):
        loaders = Registry()
        loaders.register("4", loader_a)
        assert loaders.loader_of(42) is loader_a

    def test_a_second_loader_for_a_prefix_is_an_error(self):
        loaders = Registry()
        loaders.register("text/", loader_a)
        loaders.register("text/", loader_a)
        with pytest.raises(ValueError, match="'text/' has a loader already"):
            loaders.register("text/", loader_b)
        loaders.unregister("text/")
        loaders.register("text/", loader_b)


def load_all(keys, loader, *, chunk_size=9):
    """Of keys that are identified by themselves."""
    identities = {key: key for key in keys}
    return load(identities, served(keys, loader), chunk_size=chunk_size, since=0)


class TestLoad:
    def test_a_loader_is_called_in_chunks_with_each_key_once(self):
        calls = []

        def loader(keys):
            calls.append(list(keys))
            return dict.fromkeys(keys, 1)

        assert load_all(range(5), loader, chunk_size=2) == dict.fromkeys(range(5), 1)
        assert calls == [[0, 1], [2, 3], [4]]

    def test_what_a_loader_leaves_out_has_no_value(self):
        assert load_all(["a", "b"], lambda keys: {"a": None}) == {"a": None}

    def test_what_nobody_asked_for_is_not_taken(self):
        given = {"a": 1, "intruder": 2}
        assert load_all(["a"], lambda keys: given) == {"a": 1}


@pytest.fixture
def registered():
    """A loader for keys that begin with ``doc/``; gives back the list of its calls."""
    calls = []

    @cache_loader("doc/")
    def load_documents(keys):
        calls.append(sorted(keys))
        return {key: key.upper() for key in keys if not key.endswith("gone")}

    yield calls
    registry.unregister("doc/")


class TestWithACacheThatIsDown:
    def test_get_many_answers_from_the_loader(self, make_cache, registered, recording):
        cache = make_cache(NOBODY)
        values = cache.get_many(["doc/1", "doc/gone", "other"])
        assert values == {"doc/1": "DOC/1"}
        assert registered == [["doc/1", "doc/gone"]]
        assert recording.total("unavailable") == 3
        assert recording.total("loaded") == 1

    def test_get_answers_from_the_loader(self, make_cache, registered):
        cache = make_cache(NOBODY)
        assert cache.get("doc/1") == "DOC/1"
        assert cache.get("doc/gone", "default") == "default"
        assert cache.get("other", "default") == "default"

    def test_a_loader_given_wins_over_the_registered_one(self, make_cache, registered):
        values = make_cache(NOBODY).get_many(["doc/1"], loader=loader_a)
        assert values == {"doc/1": "a"}
        assert registered == []

    def test_where_no_loader_is_none_is_counted(
        self, make_cache, registered, recording
    ):
        make_cache(NOBODY).get_many(["a", "b"])
        assert {outcome.operation for outcome in recording.outcomes} == {"get"}
        make_cache(NOBODY).get_many(["a", "doc/1"])
        assert list(recording.outcomes[-1].keys) == ["doc/1"]

    def test_a_loaders_exception_reaches_the_caller(self, make_cache, recording):
        def broken(keys):
            raise LookupError("no database")

        with pytest.raises(LookupError, match="no database"):
            make_cache(NOBODY).get_many(["a"], loader=broken)
        assert recording.outcomes[-1].operation == "load"
        assert recording.outcomes[-1].loaded == 0

    def test_existence_is_not_asked_of_the_database(self, make_cache, registered):
        assert "doc/1" not in make_cache(NOBODY)
        assert registered == []


class TestWithACacheThatAnswers:
    def test_get_many_does_not_load_what_is_just_missing(self, cache, registered):
        cache.set("doc/2", "cached")
        assert cache.get_many(["doc/1", "doc/2"]) == {"doc/2": "cached"}
        assert registered == []

    def test_get_or_load_many_loads_and_writes_back(self, cache, registered):
        cache.set("doc/2", "cached")
        wanted = ["doc/1", "doc/2", "doc/gone"]
        expected = {"doc/1": "DOC/1", "doc/2": "cached"}
        assert cache.get_or_load_many(wanted) == expected
        assert cache.get_or_load_many(wanted) == expected
        assert registered == [["doc/1", "doc/gone"], ["doc/gone"]]

    def test_a_value_that_cannot_be_decoded_is_replaced(
        self, server, make_cache, recording
    ):
        """It is loaded once, not by every call from then on."""
        old = make_cache(server.address, serde=Marshal())
        cache = make_cache(server.address)
        old.set("a", b"not a pickle")
        calls = []

        def loader(keys):
            calls.append(list(keys))
            return dict.fromkeys(keys, "new")

        for _ in range(3):
            assert cache.get_or_load_many(["a"], loader=loader) == {"a": "new"}
        assert calls == [["a"]]
        assert recording.kinds() == ["undecodable"]

    def test_write_back_never_overwrites_a_newer_value(self, cache):
        def slow(keys):
            cache.set("a", "newer")
            return {"a": "older"}

        assert cache.get_or_load_many(["a"], loader=slow) == {"a": "older"}
        assert cache.get("a") == "newer"

    def test_a_value_that_is_too_large_keeps_no_other_one_out(self, cache):
        """Though memcached does not say which of the pipeline it refused."""
        keys = [f"key-{n}" for n in range(421)]

        def load(keys):
            return {key: "x" * (2_000_000 if key == "key-3" else 500) for key in keys}

        cache.get_or_load_many(keys, load)
        assert cache.read_many(keys).missing == ["key-3"]

    def test_write_back_uses_the_timeout_and_the_version(self, cache):
        cache.get_or_load_many(["a"], loader=loader_a, timeout=0, version=2)
        assert cache.get("a", version=2) is None
        cache.get_or_load_many(["a"], loader=loader_a, version=3)
        assert cache.get("a", version=3) == "a"
        assert cache.get("a") is None

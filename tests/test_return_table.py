"""DESIGN.md's return table: what each call gives while the server is unavailable."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import override_settings

from django_safecache.exceptions import ServerUnavailableError
from django_safecache.loaders import cache_loader, registry
from django_safecache.memcached.options import RAISING
from django_safecache.testing import Faults, outage
from django_safecache.testing.severed import CUTS

KINDS = sorted(CUTS)
ANSWERS = frozenset(["server_error", "client_error"])
"""Kinds in which the server did say something, to the one command it was for."""
QUICK = {"timeout": 0.05, "connect_timeout": 5, "deadline": 5}
PREFIX = "return-table/"
KEY, OTHER = f"{PREFIX}a", f"{PREFIX}b"


def configured(address, **options):
    return override_settings(
        CACHES={
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": address,
                "OPTIONS": {**QUICK, **options},
            }
        }
    )


@pytest.fixture
def loader():
    """Registered for keys with the prefix: says where the value is from."""

    @cache_loader(PREFIX)
    def load(keys):
        return {key: f"loaded {key}" for key in keys}

    yield load
    registry.unregister(PREFIX)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def failing(local, kind):
    """The default cache, connected to a server that begins to fail in this way."""
    with configured(local.address):
        cache = caches["default"]
        cache.set_many({KEY: 1, OTHER: 2})
        with outage(kind):
            yield cache


@pytest.fixture
def raising(local, kind):
    """The same, with every operation that may raise told to."""
    with configured(local.address, raise_on_unavailable=RAISING), outage(kind):
        yield caches["default"]


class TestEveryKind:
    """Of failure, and every cell of the table."""

    def test_get_gives_what_the_loader_has(self, failing, loader):
        assert failing.get(KEY) == f"loaded {KEY}"

    def test_get_without_a_loader_gives_the_default(self, failing):
        assert failing.get(KEY) is None
        assert failing.get(KEY, "default") == "default"

    def test_get_many_gives_what_the_loader_has(self, failing, loader):
        assert failing.get_many([KEY, OTHER, "no-loader"]) == {
            KEY: f"loaded {KEY}",
            OTHER: f"loaded {OTHER}",
        }

    def test_get_or_load_many_loads(self, failing):
        found = failing.get_or_load_many(["x"], lambda keys: dict.fromkeys(keys, 1))
        assert found == {"x": 1}

    def test_read_many_names_the_failure(self, failing, kind):
        result = failing.read_many([KEY, OTHER])
        assert (result.found, result.missing) == ({}, [])
        assert sorted(result.unavailable) == [KEY, OTHER]
        assert kind in {failure.kind for failure in result.failures}

    def test_set_gives_none_and_remembers_the_key(self, failing, kind):
        assert failing.set(KEY, 3) is None
        assert failing.server_status()[0].unwritten == 1

    def test_set_many_gives_the_keys(self, failing):
        assert failing.set_many({KEY: 3, OTHER: 4}) == [KEY, OTHER]

    def test_delete_and_touch_give_false(self, failing):
        assert failing.delete(KEY) is False
        assert failing.touch(KEY, 10) is False
        assert failing.delete_many([KEY, OTHER]) is None

    def test_add_gives_false(self, failing):
        assert failing.add("new", 1) is False

    @pytest.mark.parametrize("method", ["incr", "decr"])
    def test_incr_and_decr_raise_a_value_error(self, failing, kind, method):
        expected = ValueError if kind in ANSWERS else ServerUnavailableError
        with pytest.raises(expected):
            getattr(failing, method)(KEY)

    @pytest.mark.parametrize(
        "method", ["aincr", "adecr", "aincr_version", "adecr_version"]
    )
    def test_so_do_the_async_ones(self, failing, loader, kind, method):
        """No loader gives a number that was never stored."""
        expected = ServerUnavailableError
        if kind in ANSWERS and method in ("aincr", "adecr"):
            expected = ValueError
        with pytest.raises(expected):
            async_to_sync(getattr(failing, method))(KEY)

    def test_aget_gives_what_the_loader_has(self, failing, loader):
        assert async_to_sync(failing.aget)(KEY) == f"loaded {KEY}"
        assert async_to_sync(failing.aget)("no-loader", "default") == "default"

    def test_aget_raises_where_that_is_asked_for(self, raising):
        with pytest.raises(ServerUnavailableError, match=r"^get:"):
            async_to_sync(raising.aget)(KEY)

    def test_ahas_key_gives_false(self, failing, loader):
        assert async_to_sync(failing.ahas_key)(KEY) is False

    def test_has_key_gives_false(self, failing):
        assert failing.has_key(KEY) is False

    def test_clear_gives_none(self, failing):
        assert failing.clear() is None

    @pytest.mark.parametrize("operation", RAISING)
    def test_each_raises_where_that_is_asked_for(self, raising, kind, operation):
        """But where the server refused a single command: it did answer."""
        if kind in ANSWERS and operation not in ("get", "get_many"):
            assert not CALLS[operation](raising) or operation == "set_many"
            return
        with pytest.raises(ServerUnavailableError) as raised:
            CALLS[operation](raising)
        assert raised.value.kind in (kind, "breaker_open")


CALLS = {
    "get": lambda cache: cache.get(KEY),
    "get_many": lambda cache: cache.get_many([KEY]),
    "set": lambda cache: cache.set(KEY, 1),
    "set_many": lambda cache: cache.set_many({KEY: 1, OTHER: 1}),
    "add": lambda cache: cache.add(KEY, 1),
    "delete": lambda cache: cache.delete(KEY),
    "delete_many": lambda cache: cache.delete_many([KEY, OTHER]),
    "touch": lambda cache: cache.touch(KEY),
}


class TestOtherKinds:
    """Failures that no server makes."""

    def test_breaker_open(self, make_cache, loader, recording):
        cache = make_cache("127.0.0.1:1")
        cache.get("x")
        recording.outcomes.clear()
        assert cache.get(KEY) == f"loaded {KEY}"
        assert cache.get_many([OTHER]) == {OTHER: f"loaded {OTHER}"}
        assert (cache.set(KEY, 1), cache.delete(KEY)) == (None, False)
        assert cache.set_many({KEY: 1}) == [KEY]
        assert cache.add(KEY, 1) is False
        with pytest.raises(ServerUnavailableError, match="breaker_open"):
            cache.incr(KEY)
        assert set(recording.kinds()) == {"breaker_open"}

    def test_deadline(self, local, make_cache, loader, recording):
        cache = make_cache(local.address, timeout=5, deadline=0.1)
        local.faults = Faults(delay=1)
        assert cache.get_many([KEY, OTHER]) == {
            KEY: f"loaded {KEY}",
            OTHER: f"loaded {OTHER}",
        }
        assert cache.set_many({KEY: 1, OTHER: 2}) == [KEY, OTHER]
        assert set(recording.kinds()) == {"deadline"}

    def test_pool_exhausted(self, local, make_cache, loader, recording):
        cache = make_cache(local.address, pool_max_size=1, deadline=0.1)
        (server,) = cache._cluster.servers
        held = server.pool.take(1e9)
        assert cache.get(KEY) == f"loaded {KEY}"
        assert cache.set_many({KEY: 1}) == [KEY]
        assert recording.kinds() == ["pool_exhausted"] * 2
        held.close()

    def test_too_large(self, server, make_cache, recording):
        """The old value is gone, and the key is named."""
        cache = make_cache(server.address, timeout=20, deadline=60)
        cache.set(KEY, "old")
        assert cache.set_many({KEY: "x" * 2_000_000, OTHER: 1}) == [KEY]
        assert cache.get_many([KEY, OTHER]) == {OTHER: 1}
        assert set(recording.kinds()) == {"too_large"}

    def test_undecodable(self, local, make_cache, loader, recording):
        """A miss, and not unavailable: the loader of get_many is not asked."""
        make_cache(local.address, serde=Broken()).set(KEY, "x")
        cache = make_cache(local.address)
        assert cache.get(KEY, "default") == "default"
        assert cache.get_many([KEY, OTHER]) == {}
        assert set(recording.kinds()) == {"undecodable"}
        assert recording.total("hits") == 0

    def test_the_error_names_the_server_that_did_not_answer(self, local, make_cache):
        """Not one with a value that cannot be decoded."""
        make_cache(local.address, serde=Broken()).set_many(
            dict.fromkeys(map(str, range(20)), "x")
        )
        cache = make_cache(
            [local.address, "127.0.0.1:1"], raise_on_unavailable=["get_many"]
        )
        with pytest.raises(ServerUnavailableError) as raised:
            cache.get_many(map(str, range(20)))
        assert (raised.value.server, raised.value.kind) == ("127.0.0.1:1", "refused")


class Broken:
    """A serde that says of anything that it is a pickle."""

    def serialize(self, key, value):
        return value, 1

    def deserialize(self, key, value, flags):
        return value

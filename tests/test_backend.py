from __future__ import annotations

import asyncio
import enum
import pickle
import ssl
import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.exceptions import ImproperlyConfigured

from django_safecache.backend import SafeCache
from django_safecache.exceptions import ServerUnavailableError
from django_safecache.memcached.placement import Address
from django_safecache.testing import Faults

NOBODY = "127.0.0.1:1"
BAD_KEYS = ["k" * 251, "a b", "a\nb", "a\x00b", "\x7f", "é" * 124, "\ud800"]


class Colour(str, enum.Enum):
    RED = "red"


class TestDjangosContract:
    @pytest.mark.parametrize(
        "value", ["", "é", b"\x00\xff", 0, -5, 10**30, True, None, 1.5, {"a": [1]}, ()]
    )
    def test_every_value_comes_back_as_it_went(self, cache, value):
        cache.set("key", value)
        assert cache.get("key", "default") == value
        assert type(cache.get("key", "default")) is type(value)

    def test_a_missing_key_gives_the_default(self, cache):
        assert cache.get("missing") is None
        assert cache.get("missing", "default") == "default"

    def test_add_stores_only_once(self, cache):
        assert cache.add("key", 1) is True
        assert cache.add("key", 2) is False
        assert cache.get("key") == 1

    def test_delete_says_whether_there_was_one(self, cache):
        cache.set("key", 1)
        assert cache.delete("key") is True
        assert cache.delete("key") is False

    def test_incr_and_decr(self, cache):
        cache.set("key", 10)
        assert cache.incr("key", 5) == 15
        assert cache.decr("key") == 14
        assert cache.incr("key", -4) == 10
        assert cache.decr("key", -1) == 11
        assert cache.get("key") == 11

    def test_incr_of_nothing_is_a_value_error(self, cache):
        with pytest.raises(ValueError, match="Key 'missing' not found"):
            cache.incr("missing")

    def test_incr_of_text_is_a_value_error_in_the_servers_words(self, cache):
        cache.set("key", "text")
        with pytest.raises(ValueError, match="non-numeric value"):
            cache.incr("key")

    def test_incr_by_a_fraction_is_a_type_error(self, cache):
        with pytest.raises(TypeError):
            cache.incr("key", 1.5)

    def test_touch_gives_a_new_timeout(self, cache):
        cache.set("key", 1, timeout=1)
        assert cache.touch("key", 100) is True
        assert cache.touch("missing", 100) is False
        time.sleep(1.1)
        assert cache.get("key") == 1

    @pytest.mark.parametrize("timeout", [0, -1, 0.5])
    def test_a_timeout_of_nothing_expires_at_once(self, cache, timeout):
        cache.set("key", 1)
        cache.set("key", 2, timeout=timeout)
        assert cache.get("key") is None

    def test_a_timeout_over_thirty_days_is_kept(self, cache):
        cache.set("key", 1, timeout=60 * 60 * 24 * 31)
        assert cache.get("key") == 1

    def test_set_many_returns_no_key_when_all_are_stored(self, cache):
        assert cache.set_many({"a": 1, "b": 2}) == []
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}

    def test_delete_many(self, cache):
        cache.set_many({"a": 1, "b": 2, "c": 3})
        assert cache.delete_many(iter(["a", "b", "missing"])) is None
        assert cache.get_many("abc") == {"c": 3}

    def test_has_key_and_in(self, cache):
        cache.set("key", None)
        assert cache.has_key("key")
        assert "key" in cache
        assert "missing" not in cache

    def test_get_or_set(self, cache):
        assert cache.get_or_set("key", lambda: 7) == 7
        assert cache.get_or_set("key", 8) == 7

    def test_versions(self, cache):
        cache.set("key", 1, version=2)
        assert cache.get("key") is None
        assert cache.incr_version("key", version=2) == 3
        assert cache.get("key", version=2) is None
        assert cache.get("key", version=3) == 1
        assert cache.decr_version("key", version=3) == 2
        with pytest.raises(ValueError, match="not found"):
            cache.incr_version("missing")

    def test_clear_empties_the_server(self, cache):
        cache.set("key", 1)
        assert cache.clear() is None
        assert cache.get("key") is None

    def test_close_keeps_the_connection(self, local, make_cache):
        """Django closes all caches after every request."""
        cache = make_cache(local.address)
        for _ in range(5):
            cache.get("key")
            cache.close()
        assert local.connections_accepted == 1

    def test_disconnect_all_closes_and_the_next_call_opens(self, local, make_cache):
        cache = make_cache(local.address)
        cache.set("key", 1)
        cache.disconnect_all()
        assert cache.get("key") == 1
        assert local.connections_accepted == 2


class TestKeys:
    def test_any_iterable_with_duplicates_and_numbers(self, cache):
        cache.set_many({1: "one", "b": "two"})
        assert cache.get_many(key for key in [1, "b", 1, "b"]) == {1: "one", "b": "two"}

    def test_no_keys_ask_nothing(self, cache, recording):
        assert cache.get_many([]) == {}
        assert cache.set_many({}) == []
        assert cache.delete_many([]) is None
        assert recording.outcomes == []

    def test_the_longest_key_works(self, cache):
        key = "k" * (250 - len(":1:"))
        cache.set(key, 1)
        assert cache.get_many([key]) == {key: 1}

    def test_non_ascii_keys_work(self, cache):
        cache.set("ключ:漢字", 1)
        assert cache.get_many(["ключ:漢字"]) == {"ключ:漢字": 1}

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_bad_key_is_never_a_miss(self, local, make_cache, key):
        """`InvalidCacheKey` from every method, before anything is sent."""
        cache = make_cache(local.address)
        for call in (
            lambda: cache.get(key),
            lambda: cache.get_many(["good", key]),
            lambda: cache.read_many(["good", key]),
            lambda: cache.get_or_load_many(["good", key]),
            lambda: cache.set(key, 1),
            lambda: cache.set_many({"good": 1, key: 1}),
            lambda: cache.add(key, 1),
            lambda: cache.delete(key),
            lambda: cache.delete_many(["good", key]),
            lambda: cache.touch(key),
            lambda: cache.incr(key),
            lambda: cache.has_key(key),
        ):
            with pytest.raises(InvalidCacheKey):
                call()
        assert local.connections_accepted == 0

    @pytest.mark.parametrize(
        "call",
        [
            lambda cache: cache.get(""),
            lambda cache: cache.get_many(["a", ""]),
            lambda cache: cache.set("", 1),
            lambda cache: cache.set_many({"": 1}),
        ],
    )
    def test_a_made_key_that_is_empty_is_refused(self, local, make_cache, call):
        """As a key function may make it of what a user typed."""
        cache = make_cache(
            local.address, params={"KEY_FUNCTION": lambda key, prefix, version: key}
        )
        with pytest.raises(InvalidCacheKey, match="it is empty"):
            call(cache)
        assert local.lines == []

    def test_a_key_function_makes_the_key(self, local, make_cache):
        cache = make_cache(
            local.address,
            params={"KEY_FUNCTION": lambda key, prefix, version: f"{version}/{key}"},
        )
        cache.set("key", 1)
        assert cache.get("key") == 1
        assert any(line.startswith(b"get 1/key") for line in local.lines)

    def test_a_subclass_may_make_and_check_its_keys(self, local, make_cache):
        class Upper(SafeCache):
            def make_key(self, key, version=None):
                return super().make_key(key, version).upper()

            def validate_key(self, key):
                if "Z" in key:
                    raise InvalidCacheKey("no Z")

        cache = make_cache(local.address, cls=Upper)
        cache.set("key", 1)
        assert any(line.startswith(b"set :1:KEY") for line in local.lines)
        with pytest.raises(InvalidCacheKey, match="no Z"):
            cache.get_many(["a", "z"])

    def test_a_subclass_may_do_both_in_one(self, local, make_cache):
        """As for tenants: two of them never share a value."""

        class Tenant(SafeCache):
            tenant = "one"

            def make_and_validate_key(self, key, version=None):
                return super().make_and_validate_key(f"{self.tenant}/{key}", version)

        cache = make_cache(local.address, cls=Tenant)
        cache.set("key", 1)
        cache.set_many({"many": 2})
        assert cache.get_many(["key", "many"]) == {"key": 1, "many": 2}
        cache.tenant = "two"
        assert cache.get("key") is None
        assert cache.get_many(["key", "many"]) == {}

    def test_a_method_put_onto_the_object_makes_the_key(self, local, make_cache):
        """As debugging tools do, at any time."""
        cache = make_cache(local.address)
        cache.set("key", 1)
        cache.make_key = lambda key, version=None: f"patched/{key}"
        assert cache.get("key") is None
        assert cache.get_many(["key"]) == {}

    def test_a_key_that_has_no_hash_works_as_in_django(self, cache):
        cache.set([1], "list")
        assert cache.get([1]) == "list"
        assert cache.touch([1]) is True
        assert cache.delete([1]) is True

    def test_an_enum_is_the_text_it_prints_as(self, make_cache, memcached):
        ours = make_cache(memcached.address)
        theirs = PyMemcacheCache(memcached.address, {})
        theirs.set(Colour.RED, 1)
        theirs.close()
        assert ours.get(Colour.RED) == 1

    def test_without_unicode_keys_they_are_refused(self, local, make_cache):
        cache = make_cache(local.address, allow_unicode_keys=False)
        with pytest.raises(InvalidCacheKey, match="is not ASCII"):
            cache.get("é")

    def test_a_key_prefix_goes_onto_the_wire(self, local, make_cache):
        cache = make_cache(local.address, key_prefix="site/")
        cache.set("key", 1)
        assert cache.get_many(["key"]) == {"key": 1}
        assert b"get site/:1:key" in [line.rstrip() for line in local.lines]
        with pytest.raises(InvalidCacheKey):
            cache.get("k" * 243)


class TestDropIn:
    @pytest.fixture
    def theirs(self, memcached):
        cache = PyMemcacheCache(memcached.address, {})
        yield cache
        cache.close()

    @pytest.mark.parametrize("value", ["é", b"b", 5, True, None, {"a": 1}])
    def test_each_reads_what_the_other_wrote(
        self, memcached, make_cache, theirs, value
    ):
        """A fleet can change over one host at a time."""
        ours = make_cache(memcached.address)
        theirs.set("from-them", value)
        ours.set("from-us", value)
        assert ours.get("from-them") == value
        assert theirs.get("from-us") == value

    def test_the_same_return_values(self, memcached, make_cache, theirs):
        def script(cache):
            cache.clear()
            yield cache.set("a", 1)
            yield cache.add("a", 2), cache.add("b", 2)
            yield cache.get("a"), cache.get("nope"), cache.get("nope", 3)
            yield cache.incr("a"), cache.decr("a", 5)
            yield cache.touch("a"), cache.touch("nope")
            yield cache.set_many({"c": 1, "d": "x" * 2_000})
            yield cache.get_many(["a", "b", "c", "d", "nope"])
            yield cache.delete("a"), cache.delete("a"), cache.delete_many(["b"])
            yield cache.get_or_set("e", 5), cache.has_key("e"), "e" in cache
            yield cache.incr_version("e"), cache.get("e", version=2)
            yield cache.clear(), cache.get("e", version=2)

        ours = make_cache(memcached.address)
        assert list(script(ours)) == list(script(theirs))

    def test_two_keys_with_one_made_key_are_one(self, memcached, make_cache, theirs):
        data = {1: "x", "1": "y"}
        ours = make_cache(memcached.address)
        assert ours.set_many(data) == theirs.set_many(data) == []
        assert ours.get_many([1, "1"]) == theirs.get_many([1, "1"]) == {"1": "y"}

    def test_so_are_two_texts_that_say_that_they_differ(self, memcached, make_cache):
        class Name(str):
            __slots__ = ()
            __eq__, __hash__ = object.__eq__, object.__hash__

            def __str__(self):
                return self

        cache = make_cache(memcached.address)
        cache.set("a", 1)
        assert len(cache.get_many([Name("a"), Name("a")])) == 1

    def test_the_same_exptimes(self, make_cache):
        ours = make_cache(NOBODY, params={"TIMEOUT": 77})
        theirs = PyMemcacheCache(NOBODY, {"TIMEOUT": 77})
        for timeout in (None, 0, 0.5, -1, -0.2, 5, 2592000, "12", 1.9):
            assert _exptime(ours, timeout) == _exptime(theirs, timeout)
        assert ours.get_backend_timeout() == theirs.get_backend_timeout() == 77
        late = ours.get_backend_timeout(2592001) - theirs.get_backend_timeout(2592001)
        assert abs(late) <= 1

    def test_keys_are_on_the_servers_where_pymemcache_put_them(
        self, campfire_keys, memcached, own_memcached, make_cache
    ):
        servers = [memcached.address, own_memcached.address]
        theirs = PyMemcacheCache(servers, {})
        ours = make_cache(servers)
        theirs.set_many(dict.fromkeys(campfire_keys, "warm"))
        theirs.close()
        assert ours.get_many(campfire_keys) == dict.fromkeys(campfire_keys, "warm")


def _exptime(cache, timeout):
    try:
        return cache.get_backend_timeout(timeout)
    except TypeError:
        return TypeError


class TestSize:
    def test_the_421_keys_of_campfire(self, cache, campfire_keys, recording):
        """All are found, in lines of at most 1024 bytes."""
        data = {key: f"<p>{key}</p>" for key in campfire_keys}
        assert cache.set_many(data) == []
        assert cache.get_many(campfire_keys) == data
        read = recording.outcomes[-1]
        assert (read.hits, read.misses, read.unavailable) == (421, 0, 0)
        assert read.lines == 36

    def test_a_server_that_drops_long_lines_answers_all(
        self, local, make_cache, campfire_keys
    ):
        """The server of 2011: any line over 1024 bytes, and the connection is gone."""
        local.faults = type(local.faults)(max_unterminated_bytes=1024)
        cache = make_cache(local.address)
        cache.set_many(dict.fromkeys(campfire_keys, "x" * 500))
        assert len(cache.get_many(campfire_keys)) == 421
        assert max(map(len, local.lines)) <= 1024

    def test_a_value_too_large_is_not_stored_and_the_old_one_gone(
        self, cache, recording
    ):
        cache.set("key", "old")
        assert cache.set("key", "x" * 1_100_000) is None
        assert cache.get("key") is None
        assert recording.kinds() == ["too_large"]

    def test_a_value_too_large_does_not_hurt_its_neighbours(self, cache):
        """Every other key of a set_many is stored, and its own is named."""
        data = {f"k{number}": "small" for number in range(50)}
        data["k25"] = "x" * 1_100_000
        assert cache.set_many(data) == ["k25"]
        assert len(cache.get_many(data)) == 49

    def test_however_many_are_too_large_the_others_are_stored(self, cache):
        """What stands behind them must not keep its old value on a healthy server."""
        last = {f"last{number}": "new" for number in range(5)}
        cache.set_many(dict.fromkeys(last, "old"))
        large = {f"large{number}": "x" * 1_100_000 for number in range(12)}
        assert cache.set_many({**large, **last}) == list(large)
        assert cache.get_many(last) == last

    def test_many_values_of_a_megabyte(self, make_cache, server):
        cache = make_cache(server.address, deadline=30, timeout=10)
        data = {f"k{number}": b"v" * 1_000_000 for number in range(20)}
        assert cache.set_many(data) == []
        assert cache.get_many(data) == data

    def test_a_hundred_thousand_keys(self, make_cache, memcached):
        """Missing and found ones, more request bytes than any window."""
        cache = make_cache(memcached.address, deadline=60, timeout=10)
        present = {f"present/{number}": number for number in range(20_000)}
        absent = [f"absent/{number}" for number in range(80_000)]
        assert cache.set_many(present) == []
        assert cache.get_many([*absent, *present]) == present


class TestConfiguration:
    @pytest.mark.parametrize("location", ["", None, [], " ", ";,", [""]])
    def test_a_location_without_servers_is_refused(self, location):
        with pytest.raises(ImproperlyConfigured, match="LOCATION names no server"):
            SafeCache(location, {})

    def test_a_malformed_server_is_named(self):
        with pytest.raises(ImproperlyConfigured, match="'host:port': port 'port'"):
            SafeCache(["a:1", "host:port"], {})

    def test_tls_on_a_unix_socket_is_refused(self):
        """It would be plain text, and nobody would know."""
        options = {"tls_context": ssl.create_default_context()}
        with pytest.raises(
            ImproperlyConfigured, match="cannot protect the unix socket"
        ):
            SafeCache("unix:/run/m.sock", {"OPTIONS": options})

    def test_a_bad_option_is_named_with_its_cache(self, settings):
        settings.CACHES = {
            "pages": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": NOBODY,
                "OPTIONS": {"timeout": "soon"},
            }
        }
        with pytest.raises(ImproperlyConfigured) as raised:
            caches["pages"].get("key")
        assert str(raised.value) == (
            "CACHES['pages']: OPTIONS['timeout'] is 'soon'; expected seconds, a number "
            "over 0"
        )

    def test_separators_and_duplicates(self, make_cache):
        cache = make_cache("a:1; b:2,a:1 ,unix:/c")
        names = [server.name for server in cache._cluster.servers]
        assert names == ["a:1", "b:2", "/c"]
        assert Address("a:1", ("a", 1)).name in names

    def test_it_needs_no_app_and_no_database(self, local):
        """Nothing but CACHES set, in a process of its own."""
        import subprocess
        import sys

        script = (
            "from django.conf import settings; settings.configure(CACHES={'default': "
            "{'BACKEND': 'django_safecache.backend.SafeCache', 'LOCATION': "
            f"'{local.address}'}}}})\n"
            "from django.core.cache import cache\n"
            "cache.set('a', 1); assert cache.get_many(['a', 'b']) == {'a': 1}\n"
            "print(cache.get('a'))\n"
            "import sys; assert 'django_safecache.models' not in sys.modules\n"
            "cache.disconnect_all()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout == "1\n"

    def test_a_unix_socket(self, tmp_path, make_cache):
        from django_safecache.testing import LocalMemcached

        with LocalMemcached(path=tmp_path / "m.sock") as server:
            cache = make_cache(server.address)
            cache.set("key", 1)
            assert cache.get("key") == 1

    def test_another_backend_at_the_same_place_is_another_cache(self, settings):
        """While a site tries this one beside its old one."""
        place = {"LOCATION": NOBODY}
        djangos = "django.core.cache.backends.memcached.PyMemcacheCache"
        settings.CACHES = {
            "default": {"BACKEND": djangos, **place},
            "safe": {"BACKEND": "django_safecache.backend.SafeCache", **place},
        }
        assert caches["safe"].alias == "safe"

    def test_the_alias_is_the_one_in_caches(self, settings):
        settings.CACHES = {
            name: {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": NOBODY,
                "KEY_PREFIX": name,
            }
            for name in ("default", "pages")
        }
        assert caches["pages"].alias == "pages"
        assert caches["default"].alias == "default"


class TestUnavailable:
    """What a caller gets from each method when the server does not answer."""

    @pytest.fixture
    def down(self, make_cache):
        return make_cache(NOBODY)

    def test_no_method_raises_but_incr_and_decr(self, down):
        assert down.get("key") is None
        assert down.get("key", "default") == "default"
        assert down.get_many(["a", "b"]) == {}
        assert down.set("key", 1) is None
        assert down.add("key", 1) is False
        assert down.touch("key") is False
        assert down.delete("key") is False
        assert down.delete_many(["a"]) is None
        assert down.set_many({"a": 1, 2: 2}) == ["a", 2]
        assert down.has_key("key") is False
        assert down.get_or_set("key", 5) == 5
        assert down.clear() is None

    @pytest.mark.parametrize("method", ["incr", "decr", "incr_version"])
    def test_incr_and_decr_raise_a_value_error_that_says_why(self, down, method):
        with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:1") as raised:
            getattr(down, method)("key")
        assert isinstance(raised.value, ValueError)
        assert raised.value.server == NOBODY
        assert raised.value.kind == "refused"

    def test_the_error_can_be_pickled(self, down):
        """As test runners and task queues do."""
        with pytest.raises(ServerUnavailableError) as raised:
            down.incr("key")
        copy = pickle.loads(pickle.dumps(raised.value))
        assert (copy.server, copy.kind, str(copy)) == (
            NOBODY,
            "refused",
            str(raised.value),
        )

    def test_a_full_server_is_unavailable_not_an_answer(
        self, local, make_cache, recording
    ):
        """``ERROR Too many open connections``: a lock is neither taken nor free."""
        local.faults = Faults(too_many_connections=True)
        cache = make_cache(local.address, raise_on_unavailable=["add", "set"])
        for call in (
            lambda: cache.add("key", 1),
            lambda: cache.set("key", 1),
            lambda: cache.incr("key"),
        ):
            with pytest.raises(ServerUnavailableError):
                call()
        assert cache.set_many({"a": 1, "b": 2, "c": 3}) == ["a", "b", "c"]
        assert recording.total("unavailable") == 6
        assert set(recording.kinds()) == {"too_many_connections"}
        assert local.connections_accepted == 4

    def test_read_many_hides_nothing(self, down):
        result = down.read_many(["a", "b"])
        assert (result.found, result.missing) == ({}, [])
        assert result.unavailable == ["a", "b"]
        assert [failure.kind for failure in result.failures] == ["refused"]
        assert result.failures[0].phase == "connect"

    def test_raise_on_unavailable_raises_where_asked(self, make_cache):
        cache = make_cache(NOBODY, raise_on_unavailable=["add", "get_many"])
        with pytest.raises(ServerUnavailableError):
            cache.add("key", 1)
        with pytest.raises(ServerUnavailableError):
            cache.get_many(["key"])
        assert cache.get("key") is None

    def test_a_host_that_does_not_resolve_is_unreachable(self, make_cache, recording):
        cache = make_cache("no-such-host.invalid:11211")
        assert cache.get("key", "default") == "default"
        assert recording.kinds() == ["unreachable"]

    def test_a_missing_unix_socket_is_unreachable(self, make_cache, recording):
        assert make_cache("unix:/no/such.sock").get("key", 1) == 1
        assert recording.kinds() == ["unreachable"]

    def test_one_dead_server_of_two_takes_only_its_own_keys(
        self, server, make_cache, campfire_keys
    ):
        cache = make_cache([server.address, NOBODY])
        failed = cache.set_many(dict.fromkeys(campfire_keys, "x"))
        result = cache.read_many(campfire_keys)
        assert 0 < len(failed) < 421
        assert sorted(result.unavailable) == sorted(failed)
        assert len(result.found) == 421 - len(failed)
        assert result.missing == []


class TestAsync:
    def test_the_many_methods(self, cache):
        async def script():
            assert await cache.aset_many({"a": 1, "b": 2}) == []
            assert await cache.aget_many(["a", "b", "c"]) == {"a": 1, "b": 2}
            result = await cache.aread_many(["a", "c"])
            assert (result.found, result.missing) == ({"a": 1}, ["c"])
            loaded = await cache.aget_or_load_many(
                ["a", "c"], loader=lambda keys: dict.fromkeys(keys, "loaded")
            )
            assert loaded == {"a": 1, "c": "loaded"}
            await cache.adelete_many(["a"])
            return await cache.aget_many(["a", "b", "c"])

        assert async_to_sync(script)() == {"b": 2, "c": "loaded"}

    def test_the_numbers(self, cache):
        """Concurrent ones, too: each is one command of the server."""

        async def script():
            cache.set("n", 0, timeout=100)
            await asyncio.gather(*[cache.aincr("n") for _ in range(50)])
            assert await cache.adecr("n", 8) == 42
            assert await cache.ahas_key("n")
            assert await cache.aincr_version("n") == 2
            assert await cache.adecr_version("n", version=2) == 1
            return await cache.aget("n")

        assert async_to_sync(script)() == 42

    def test_the_loader_answers_when_the_server_does_not(self, make_cache):
        down = make_cache(NOBODY)
        loader = {"a": 1}.items
        values = async_to_sync(down.aget_many)(
            ["a"], loader=lambda keys: dict(loader())
        )
        assert values == {"a": 1}


class TestThreads:
    def test_all_threads_share_the_connections_of_a_cache(self, local, settings):
        """Django makes a backend for each thread; the server sees one client."""
        settings.CACHES = {
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": local.address,
            }
        }
        backends = []

        def work():
            caches["default"].set("key", 1)
            backends.append(caches["default"])

        for _ in range(5):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert len({id(backend) for backend in backends}) == 5
        assert local.connections_accepted == 1

    def test_changed_settings_are_another_cache(self, local, settings):
        """Options and servers of one test do not live on in the next."""
        config = {
            "BACKEND": "django_safecache.backend.SafeCache",
            "LOCATION": local.address,
        }
        settings.CACHES = {"default": config}
        caches["default"].set("key", 1)
        settings.CACHES = {"default": {**config, "OPTIONS": {"key_prefix": "x"}}}
        assert caches["default"].get("key") is None
        assert local.connections_accepted == 2
        assert local.connections_open == 1

    def test_threads_never_read_each_others_answers(self, cache):
        """Twenty threads on one cache, each with keys of its own."""
        wrong = []

        def work(number):
            mine = {f"{number}/{k}": f"{number}-{k}" for k in range(50)}
            for _ in range(10):
                cache.set_many(mine)
                if cache.get_many(mine) != mine:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=[n]) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_an_unpicklable_value_is_the_callers_error(self, cache):
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            cache.set("key", lambda: None)
        assert settings.configured

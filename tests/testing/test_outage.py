"""`outage`: every kind is the operating system's own, and gone when it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import subprocess
import sys
import threading
import time

import pytest
from django.core.cache import caches
from django.test import override_settings
from pymemcache.client.base import KeepaliveOpts
from socket_modules import SmallBuffers

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.testing import LocalMemcached, outage
from django_safecache.testing.severed import CUTS

pytest_plugins = ["django_safecache.testing.pytest_plugin"]

NOBODY = "127.0.0.1:1"
QUICK = {"timeout": 0.05, "connect_timeout": 20, "deadline": 60}
KEYS = [f"key-{n}" for n in range(40)]
SAFE_CACHE = "django_safecache.backend.SafeCache"
PRODUCIBLE = sorted(CUTS)


def configured(**locations):
    """CACHES with a `SafeCache` for each alias."""
    return override_settings(
        CACHES={
            alias: {"BACKEND": SAFE_CACHE, "LOCATION": location, "OPTIONS": QUICK}
            for alias, location in {"default": NOBODY, **locations}.items()
        }
    )


@pytest.fixture
def nobody():
    """The default cache, where no server is."""
    with configured():
        yield caches["default"]


@pytest.fixture(params=["memcached", "local"])
def cache(request):
    """The default cache, on each of the two servers."""
    with configured(default=request.getfixturevalue(request.param).address):
        yield caches["default"]


@pytest.fixture
def two():
    """The default cache, with two servers: itself, the server's names."""
    with LocalMemcached() as one, LocalMemcached() as other:
        names = [one.address, other.address]
        with configured(default=names):
            yield caches["default"], *names
            caches["default"].disconnect_all()


def load(keys):
    return {key: f"loaded {key}" for key in keys}


def kinds(cache, keys=("a",)):
    return {failure.kind for failure in cache.read_many(keys).failures}


class TestKinds:
    def test_every_kind_is_of_the_one_vocabulary(self):
        assert set(CUTS) < set(FAILURE_KINDS)

    @pytest.mark.parametrize("kind", PRODUCIBLE)
    def test_it_is_what_a_read_says_where_no_server_is(self, nobody, kind):
        with outage(kind):
            result = nobody.read_many(["a"])
        assert result.failures[0].kind == kind
        assert result.unavailable == ["a"]

    @pytest.mark.parametrize("kind", PRODUCIBLE)
    def test_it_is_what_a_read_says_where_one_is_connected(self, cache, kind):
        """Of one key and of many; and nothing of it is left afterwards."""
        cache.set_many(dict.fromkeys(KEYS, 1))
        with outage(kind):
            assert cache.read_many(["key-1"]).failures[0].kind == kind
            with outage(kind):  # from the beginning, whatever the breaker says
                assert cache.get("key-1", "default") == "default"
            assert cache.get_many(KEYS, loader=load) == load(KEYS)
        assert cache.read_many(KEYS).found == dict.fromkeys(KEYS, 1)
        assert cache.get("key-1") == 1

    @pytest.mark.parametrize("kind", PRODUCIBLE)
    def test_writes_fail_as_they_do_in_production(self, cache, kind):
        with outage(kind):
            assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
            assert cache.add("a", 1) is False
            assert cache.delete("a") is False
            assert cache.touch("a") is False
            with pytest.raises(ValueError, match="a"):
                cache.incr("a")
        assert cache.set_many({"a": 1, "b": 2}) == []

    @pytest.mark.parametrize("kind", PRODUCIBLE)
    def test_a_value_larger_than_every_buffer_fails_in_the_same_way(
        self, nobody, recording, kind
    ):
        with outage(kind):
            nobody.set("a", "x" * 900_000)
        assert set(recording.kinds()) == {kind}

    @pytest.mark.parametrize(
        ("kind", "exception", "number"),
        [
            ("epipe", "BrokenPipeError", errno.EPIPE),
            ("reset", "ConnectionResetError", errno.ECONNRESET),
            ("refused", "ConnectionRefusedError", errno.ECONNREFUSED),
            ("unreachable", "OSError", errno.ENETUNREACH),
        ],
    )
    def test_errors_are_the_operating_systems(self, nobody, kind, exception, number):
        with outage(kind):
            failure = nobody.read_many(["a"]).failures[0]
        assert failure.exception == f"builtins.{exception}"
        assert failure.errno == number
        assert failure.text == f"[Errno {number}] {os.strerror(number)}"

    def test_a_timeout_takes_its_time(self, nobody):
        started = time.monotonic()
        with outage("timeout"):
            nobody.get("a")
        assert time.monotonic() - started >= QUICK["timeout"]

    def test_the_third_timeout_opens_the_breaker(self, nobody):
        with outage("timeout"):
            said = [nobody.read_many(["a"]).failures[0].kind for _ in range(4)]
        assert said == ["timeout", "timeout", "timeout", "breaker_open"]

    @pytest.mark.parametrize(
        "options",
        [
            {"no_delay": True},
            {"socket_keepalive": KeepaliveOpts(idle=5, intvl=5, cnt=3)},
            {"socket_module": SmallBuffers()},
            {"tls_context": ssl.create_default_context()},
        ],
    )
    def test_options_of_the_real_network_do_not_matter(self, options):
        config = {"BACKEND": SAFE_CACHE, "LOCATION": "no.such.host.invalid:11211"}
        with override_settings(CACHES={"default": {**config, "OPTIONS": options}}):
            for kind in PRODUCIBLE:
                with outage(kind):
                    assert kinds(caches["default"]) == {kind}

    def test_unix_sockets_fail_too(self, tmp_path):
        with configured(default=f"unix:{tmp_path}/none"):
            for kind in PRODUCIBLE:
                with outage(kind, server=f"unix:{tmp_path}/none"):
                    assert kinds(caches["default"]) == {kind}

    @pytest.mark.parametrize("kind", ["too_large", "breaker_open", "epip", ""])
    def test_what_it_cannot_make_is_a_value_error(self, kind):
        with pytest.raises(ValueError, match="there are epipe, reset, closed, timeout"):
            outage(kind)


class TestPlaces:
    @pytest.mark.parametrize("cut", [0, 1])
    def test_only_the_keys_of_one_server_are_unavailable(self, two, cut):
        cache, *servers = two
        cache.set_many(dict.fromkeys(KEYS, 1))
        with outage("reset", server=servers[cut]):
            result = cache.read_many(KEYS)
        assert {failure.server for failure in result.failures} == {servers[cut]}
        assert result.unavailable
        assert result.found == dict.fromkeys(set(KEYS) - set(result.unavailable), 1)
        assert result.found

    def test_servers_may_fail_in_different_ways(self, two):
        cache, one, other = two
        with outage("epipe", server=one), outage("closed", server=other):
            failures = cache.read_many(KEYS).failures
        assert {(failure.server, failure.kind) for failure in failures} == {
            (one, "epipe"),
            (other, "closed"),
        }

    def test_only_one_alias_fails(self, local):
        two = {"default": local.address, "other": [local.address, local.address]}
        with configured(**two), outage("refused", alias="other"):
            assert kinds(caches["other"]) == {"refused"}
            assert kinds(caches["default"]) == set()

    def test_all_aliases_fail(self, local):
        with configured(default=local.address, other=[local.address, local.address]):
            with outage("epipe", alias=None, server=local.address):
                assert kinds(caches["other"]) == {"epipe"}
                assert kinds(caches["default"]) == {"epipe"}
            assert kinds(caches["other"]) == set()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"alias": "missing"},
                "CACHES has no SafeCache 'missing'; there are default, second",
            ),
            (
                {"alias": "dummy"},
                "CACHES has no SafeCache 'dummy'; there are default, second",
            ),
            (
                {"server": "127.0.0.1:3"},
                r"CACHES\['default'\] has no server '127.0.0.1:3'; "
                "there are 127.0.0.1:1, 127.0.0.1:2",
            ),
            (
                {"alias": None, "server": "127.0.0.1:4"},
                "a SafeCache has no server '127.0.0.1:4'; "
                "there are 127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3",
            ),
            ({"server": "a b"}, "'a b' is not a server"),
        ],
    )
    def test_what_is_not_there_is_a_value_error(self, settings, arguments, message):
        """It names what is, and nothing has begun."""
        settings.CACHES = {
            "default": {
                "BACKEND": SAFE_CACHE,
                "LOCATION": ["127.0.0.1:1", "127.0.0.1:2"],
            },
            "second": {"BACKEND": SAFE_CACHE, "LOCATION": "127.0.0.1:3"},
            "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        }
        broken = outage("epipe", **arguments)
        with pytest.raises(ValueError, match=message), broken:
            pytest.fail("it began")
        assert kinds(caches["default"]) == {"refused"}

    def test_without_any_safecache_all_of_them_is_a_value_error(self, settings):
        message = "CACHES has no SafeCache; there are none"
        with pytest.raises(ValueError, match=message), outage("epipe", alias=None):
            pytest.fail("it began")


class TestScope:
    def test_the_inner_one_counts_and_the_outer_one_comes_back(self, cache):
        with outage("epipe"):
            with outage("closed"):
                assert kinds(cache) == {"closed"}
            assert kinds(cache) == {"epipe"}
        assert kinds(cache) == set()

    def test_it_can_be_used_within_itself(self, cache):
        twice = outage("epipe")
        with twice:
            with twice:
                assert kinds(cache) == {"epipe"}
            assert kinds(cache) == {"epipe"}
        assert kinds(cache) == set()

    def test_they_may_end_in_any_order(self, cache):
        first, second = outage("epipe"), outage("closed")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert kinds(cache) == {"closed"}
        second.__exit__(None, None, None)
        assert kinds(cache) == set()

    def test_it_ends_with_an_exception(self, cache):
        with pytest.raises(LookupError), outage("epipe"):
            raise LookupError
        assert kinds(cache) == set()

    def test_the_breaker_is_closed_when_it_begins_and_when_it_ends(self, cache):
        with outage("refused"):
            assert kinds(cache) == {"refused"}
            assert kinds(cache) == {"breaker_open"}
            with outage("closed"):
                assert kinds(cache) == {"closed"}
            assert kinds(cache) == {"refused"}
        assert kinds(cache) == set()

    def test_a_connection_in_use_when_it_begins_is_not_used_again(
        self, local, settings
    ):
        """What another thread has under way is answered, and what it asks next not."""
        held, told = threading.Event(), threading.Event()

        class Pausing:
            def serialize(self, key, value):
                return value, 0

            def deserialize(self, key, value, flags):
                held.set()
                told.wait(30)
                return value

        settings.CACHES = {
            "default": {
                "BACKEND": SAFE_CACHE,
                "LOCATION": local.address,
                "OPTIONS": {"serde": Pausing(), "timeout": 60, "deadline": 60},
            }
        }
        caches["default"].set("a", b"value")
        answers = []

        def use():
            answers.append(caches["default"].get_many(["a"]))
            answers.append(kinds(caches["default"]))

        thread = threading.Thread(target=use)
        thread.start()
        assert held.wait(30)
        with outage("epipe"):
            told.set()
            thread.join(30)
        assert answers == [{"a": b"value"}, {"epipe"}]
        assert kinds(caches["default"]) == set()

    def test_it_holds_in_all_threads(self, cache):
        cache.set("a", 1)
        said = []

        def use():
            for _ in range(20):
                said.append(caches["default"].get("a", "default"))

        threads = [threading.Thread(target=use) for _ in range(8)]
        with outage("closed"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert said == ["default"] * 160
        assert cache.get("a") == 1

    def test_outages_that_come_and_go_leave_nothing_to_other_threads(self, cache):
        """Whatever overlaps, an answer is right or none, and all work in the end."""
        cache.set("a", 1)
        wrong = []
        done = threading.Event()

        def use():
            while not done.is_set():
                result = caches["default"].read_many(["a"])
                if result.found != {"a": 1} and result.unavailable != ["a"]:
                    wrong.append(result)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            for kind in ("epipe", "reset", "closed", "server_error", "refused"):
                with outage(kind):
                    time.sleep(0.001)
        done.set()
        for thread in threads:
            thread.join(30)
        assert wrong == []
        assert cache.read_many(["a"]).found == {"a": 1}

    def test_what_was_written_in_vain_is_remembered(self, cache):
        """As after any outage: the old value is not there when it ends."""
        cache.set_many({"a": "old", "b": "kept"})
        with outage("epipe"):
            cache.set("a", "new")
            assert cache.get("b") is None
        assert cache.get_many(["a", "b"]) == {"b": "kept"}

    @pytest.mark.parametrize("kind", PRODUCIBLE)
    def test_what_is_written_after_it_is_read(self, cache, kind):
        """What was lost in it went nowhere: it cannot come late."""
        with outage(kind):
            cache.set("key", "lost")
            cache.set_many({"key": "lost", "other": 1})
        cache.set("key", "new")
        assert (cache.get("key"), cache.get_many(["key"])) == ("new", {"key": "new"})

    def test_a_limit_that_it_taught_ends_with_it(self, cache, campfire_keys):
        before = cache.server_status()
        for kind in PRODUCIBLE:
            with outage(kind):
                cache.read_many(campfire_keys)
        limits = [status.line_limit for status in cache.server_status()]
        assert limits == [status.line_limit for status in before]


class TestDecorator:
    def test_of_a_function_it_holds_during_each_call(self, cache):
        @outage("epipe")
        def page(name, *, suffix):
            """The page."""
            return f"{name}{suffix}", kinds(cache)

        assert page.__doc__ == "The page."
        assert kinds(cache) == set()
        for _ in range(2):
            assert page("index", suffix=".html") == ("index.html", {"epipe"})
        assert kinds(cache) == set()

    def test_of_a_coroutine_function_it_holds_until_the_coroutine_ends(self, cache):
        cache.set("a", 1)

        @outage("reset")
        async def page():
            await asyncio.sleep(0)
            return await cache.aget_many(["a"], loader=load)

        async def main():
            coroutine = page()
            before = await cache.aget_many(["a"])
            return before, await coroutine, await cache.aget_many(["a"])

        assert asyncio.iscoroutinefunction(page)
        assert asyncio.run(main()) == ({"a": 1}, load(["a"]), {"a": 1})

    def test_a_recursive_function_is_none_the_wiser(self, cache):
        @outage("epipe")
        def countdown(n):
            return [kinds(cache)] + (countdown(n - 1) if n else [])

        assert countdown(3) == [{"epipe"}] * 4
        assert kinds(cache) == set()

    def test_what_it_would_not_hold_for_is_a_type_error(self):
        def generator():
            yield

        async def asynchronous():
            yield

        for what in (generator, asynchronous, type("TestCase", (), {})):
            with pytest.raises(TypeError, match="decorates functions, not"):
                outage("epipe")(what)


class TestFixture:
    def test_it_begins_at_once(self, cache, cache_outage):
        cache_outage("epipe")
        assert kinds(cache) == {"epipe"}
        cache_outage("closed")
        assert kinds(cache) == {"closed"}

    def test_it_ends_with_its_block_or_when_told(self, cache, cache_outage):
        with cache_outage("epipe"):
            assert kinds(cache) == {"epipe"}
        assert kinds(cache) == set()
        first, second = cache_outage("epipe"), cache_outage("closed")
        first.close()
        assert kinds(cache) == {"closed"}
        second.close()
        second.close()
        assert kinds(cache) == set()

    def test_it_takes_what_outage_takes(self, two, cache_outage):
        cache, one, _ = two
        cache_outage("reset", alias=None, server=one)
        failures = cache.read_many(KEYS).failures
        assert {failure.server for failure in failures} == {one}

    def test_it_ends_with_the_test_in_a_project_without_pytest_django(self, tmp_path):
        """And the plugin imports nothing of Django by itself."""
        (tmp_path / "test_site.py").write_text(SITE)
        arguments = ["-q", "-W", "error", "-p", "no:django", "-p", "no:cacheprovider"]
        arguments += ["-p", "django_safecache.testing.pytest_plugin"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, "-c", "/dev/null", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "4 passed" in done.stdout, done.stdout + done.stderr


SITE = """
import sys

DJANGO = sorted(name for name in sys.modules if name.split(".")[0] == "django")
LOADED = sorted(name for name in sys.modules if name.startswith("django_safecache"))

import django
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_safecache.backend.SafeCache", "LOCATION": "127.0.0.1:1",
}})
django.setup()
from django.core.cache import cache
from django_safecache.testing import outage

pytest_plugins = ["django_safecache.testing.pytest_plugin"]  # registered already

def test_what_the_plugin_imported():
    assert DJANGO == []
    assert LOADED == ["django_safecache", "django_safecache.testing",
                      "django_safecache.testing.pytest_plugin"]

def test_failing(cache_outage):
    cache_outage("epipe")
    assert cache.read_many(["a"]).failures[0].kind == "epipe"

@outage("closed")
def test_decorated(tmp_path):
    assert tmp_path
    assert cache.read_many(["a"]).failures[0].kind == "closed"

def test_after():
    assert cache.read_many(["a"]).failures[0].kind == "refused"
"""

"""`cache_failed`: each outcome that has failures, to whoever wants it."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import threading

import pytest
from django.core.cache import caches
from django.dispatch import receiver
from observed import SERVER, make_failure, make_outcome

from django_safecache.backend import SafeCache
from django_safecache.memcached.outcomes import Failure, observers
from django_safecache.signals import FailureSignal, QuietSignal, cache_failed
from django_safecache.testing import outage

NOBODY = "127.0.0.1:1"


@pytest.fixture
def connected():
    """Connect receivers until the test ends."""
    made = []

    def connect(function, **options):
        made.append((function, options))
        cache_failed.connect(function, **options)
        return function

    yield connect
    for function, options in made:
        cache_failed.disconnect(function, **options)


@pytest.fixture
def received(connected):
    """What the receivers are sent."""
    received = []

    def keep(sender, **kwargs):
        received.append({"sender": sender, **kwargs})

    connected(keep)
    return received


class TestSending:
    def test_a_failed_call_is_sent_once(self, make_cache, received):
        cache = make_cache(NOBODY)
        cache.get_many(["a", "b"])
        (sent,) = received
        assert sent["sender"] is SafeCache
        assert sent["signal"] is cache_failed
        assert (sent["alias"], sent["server"]) == ("unnamed", NOBODY)
        assert sent["operation"] == "get"
        (failure,) = sent["failures"]
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.keys) == ("refused", 2)

    def test_each_server_of_a_call_is_sent(self, make_cache, received):
        make_cache([NOBODY, "127.0.0.1:2"]).set_many({f"key-{n}": n for n in range(40)})
        assert sorted(sent["server"] for sent in received) == [NOBODY, "127.0.0.1:2"]
        assert {sent["operation"] for sent in received} == {"set"}

    def test_a_call_that_works_sends_nothing(self, cache, received):
        cache.set("a", 1)
        assert cache.get("a") == 1
        assert cache.get("b") is None
        assert received == []

    def test_a_failure_that_a_retry_made_good_is_sent(
        self, local, make_cache, received
    ):
        cache = make_cache(local.address, timeout=20, deadline=60)
        cache.set("a", 1)
        local.drop_connections()
        assert cache.get("a") == 1
        assert [len(sent["failures"]) for sent in received] == [1]

    def test_aliases_have_their_names(self, settings, received):
        entry = {"BACKEND": "django_safecache.backend.SafeCache"}
        settings.CACHES = {
            "default": {**entry, "LOCATION": NOBODY},
            "other": {**entry, "LOCATION": "127.0.0.1:2"},
        }
        with outage("epipe", alias=None):
            caches["default"].set("a", 1)
            caches["other"].get("a")
        assert [
            (sent["alias"], sent["operation"], sent["failures"][0].kind)
            for sent in received
        ] == [("default", "set", "epipe"), ("other", "get", "epipe")]

    def test_a_receiver_may_ask_for_a_sender(self, connected):
        ours, others = [], []
        connected(lambda **kwargs: ours.append(kwargs), sender=SafeCache)
        connected(lambda **kwargs: others.append(kwargs), sender=str)
        observers.observe(make_outcome(failures=(make_failure(),)))
        assert (len(ours), len(others)) == (1, 0)


class TestReceivers:
    @pytest.fixture
    def log(self, caplog):
        caplog.set_level(logging.ERROR)
        return caplog

    def fail(self, times=1):
        failing = make_outcome(failures=(make_failure(),))
        observer = FailureSignal(sender=SafeCache)
        for _ in range(times):
            observer.observe(failing)

    def test_one_that_raises_breaks_nothing_and_is_logged_once(
        self, connected, log, make_cache
    ):
        def broken(**kwargs):
            raise LookupError("of the site")

        others = []
        connected(broken)
        connected(lambda **kwargs: others.append(kwargs["alias"]))
        cache = make_cache(NOBODY)
        for _ in range(3):
            assert cache.get("a", "default") == "default"
        assert len(others) == 3
        (record,) = log.records
        assert "event='signal_receiver_failed'" in record.getMessage()
        assert "test_signals" in record.getMessage()
        assert "LookupError: of the site" in record.getMessage()

    def test_each_that_raises_is_logged(self, connected, log):
        def one(**kwargs):
            raise LookupError

        def other(**kwargs):
            raise LookupError

        connected(one)
        connected(other)
        self.fail(times=3)
        assert len(log.records) == 2

    def test_one_without_a_name_is_logged_too(self, connected, log):
        def broken(_, **kwargs):
            raise LookupError

        connected(functools.partial(broken, 1))
        self.fail(times=3)
        (record,) = log.records
        assert "functools.partial" in record.getMessage()

    def test_one_that_uses_the_cache_is_not_sent_its_own_failures(
        self, connected, make_cache
    ):
        cache = make_cache(NOBODY)
        calls = []

        def using(failures, **kwargs):
            calls.append(failures[0].kind)
            assert cache.get("alarm", "default") == "default"

        connected(using)
        cache.get("a")
        cache.get("a")
        assert calls == ["refused", "breaker_open"]

    def test_an_interruption_passes_and_the_next_failure_is_sent(self, connected):
        calls = []

        def interrupted(**kwargs):
            calls.append(kwargs)
            raise KeyboardInterrupt

        connected(interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                self.fail()
        assert len(calls) == 2

    def test_a_coroutine_function_is_a_receiver(self, connected):
        calls = []

        async def receive(alias, **kwargs):
            calls.append(alias)

        connected(receive)
        self.fail()
        assert calls == ["default"]

    def test_threads_are_sent_their_own(self, received):
        failing = make_outcome(failures=(make_failure(),))
        threads = [
            threading.Thread(target=observers.observe, args=[failing]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [sent["server"] for sent in received] == [SERVER] * 8


class TestWithoutTheApp:
    def test_caches_is_all_that_it_needs(self):
        """And that the failures are logged as well."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SITE],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout == f"default {NOBODY} get refused\n", done.stderr
        assert done.stderr.count("event='cache_failures'") == 1

    def test_the_decorator_of_django_connects(self):
        signal = QuietSignal()

        @receiver(signal)
        def alarm(**kwargs):
            return kwargs["alias"]

        assert signal.send_robust(SafeCache, alias="a") == [(alarm, "a")]


SITE = f"""
from django.conf import settings
settings.configure(CACHES={{"default": {{
    "BACKEND": "django_safecache.backend.SafeCache", "LOCATION": "{NOBODY}",
}}}})
import django
django.setup()
from django.core.cache import cache
from django_safecache.signals import cache_failed

def alarm(alias, server, operation, failures, **kwargs):
    print(alias, server, operation, *[failure.kind for failure in failures])

cache_failed.connect(alarm)
cache.get("a")
"""

"""Servers and caches for the tests: the real memcached and the one in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from cache_server import Memcached, free_port
from django.core.cache import caches
from hypothesis import HealthCheck, settings
from real_memcached import memcached_or_skip

from django_safecache.backend import SafeCache
from django_safecache.memcached import unwritten
from django_safecache.memcached.outcomes import observers
from django_safecache.memcached.server import all_servers
from django_safecache.testing import LocalMemcached

# How long an example takes on a busy machine decides nothing.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")

SEED = (
    Path(__file__).parent.parent / "example_project" / "campfire" / "seed" / "keys.txt"
)


@pytest.fixture(scope="session")
def _shared_memcached():
    server = Memcached(memcached_or_skip(), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def memcached(_shared_memcached):
    """A running real memcached, shared by the session and emptied for this test."""
    cache = SafeCache(_shared_memcached.address, {})
    cache.clear()
    cache.disconnect_all()
    return _shared_memcached


@pytest.fixture
def own_memcached():
    """A real memcached of the test's own, to be stopped and started."""
    server = Memcached(memcached_or_skip(), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def local():
    """A running `LocalMemcached`, for faults."""
    with LocalMemcached() as server:
        yield server


@pytest.fixture(params=["memcached", "local"])
def server(request):
    """Each of the two servers in turn: every promise holds with both."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def make_cache():
    """Make a `SafeCache`; its connections are closed at the end."""
    made = []

    def make(location, *, cls=SafeCache, params=None, **options):
        cache = cls(location, {**(params or {}), "OPTIONS": options})
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.disconnect_all()


# Of a cache whose speed is not the question: a busy machine must not fail a test.
PATIENT = {"connect_timeout": 10, "timeout": 20, "deadline": 60}


@pytest.fixture
def cache(server, make_cache):
    return make_cache(server.address, **PATIENT)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Caches of `override_settings` and of the site close what they opened, and what
    they lost is forgotten: the next test's server may be given the same free port."""
    yield
    for server in all_servers():
        server.unwritten._due.clear()
    unwritten._by_server.clear()
    # Who captures its events leaves it configured, and logs then go another way.
    structlog.reset_defaults()
    for each in caches.all(initialized_only=True):
        if isinstance(each, SafeCache):
            each.disconnect_all()


@pytest.fixture(scope="session")
def campfire_keys():
    """The 421 keys of the request that broke Campfire, in order."""
    return SEED.read_text().split()


class Recording:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.outcomes = []

    def observe(self, outcome):
        self.outcomes.append(outcome)

    def kinds(self):
        return [f.kind for outcome in self.outcomes for f in outcome.failures]

    def total(self, field):
        return sum(getattr(outcome, field) for outcome in self.outcomes)


@pytest.fixture
def recording():
    recording = Recording()
    observers.connect(recording)
    yield recording
    observers.disconnect(recording)

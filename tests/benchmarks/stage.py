"""What the benchmarks run on: real memcacheds, a slow network, and Django's caches."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "example_project"))

import django
from cache_server import Memcached, free_port
from delaying_proxy import DelayingProxy
from django.conf import settings
from raw_socket import RawSocket

ROUND_TRIP = 0.005
"""Seconds that the slow network adds: half of it on the way there."""
SERVERS = 4
ECHO_ROUNDS = 50
PATIENT = {"deadline": 60.0, "timeout": 30.0}
"""OPTIONS for calls of so many keys that a noisy machine might pass the default
deadline. A deadline costs the same whatever it is."""

DJANGOS = "django.core.cache.backends.memcached."
BACKENDS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "SafeCache": ("django_safecache.backend.SafeCache", {}),
    "PyMemcacheCache": (DJANGOS + "PyMemcacheCache", {"no_delay": True}),
    "PyLibMCCache": (DJANGOS + "PyLibMCCache", {"behaviors": {"tcp_nodelay": True}}),
}
"""Each with its default OPTIONS, but for TCP_NODELAY, which SafeCache always sets."""


class Stage:
    """Four servers; the first of them, or three, near; all of them far away."""

    def __init__(self, program: str, addresses: Sequence[str], far: Sequence[str]):
        self.program = program
        self.places = {
            "near": ([addresses[0]], {}),
            "near, patient": ([addresses[0]], PATIENT),
            "three, patient": (addresses[:3], PATIENT),
            "far": (far, {}),
        }

    def address(self, place: str) -> str:
        return self.places[place][0][0]

    def cache(self, backend: str, place: str = "near") -> Any:
        """A cache of CACHES, so that its calls are counted as a site's are."""
        from django.core.cache import caches

        return caches[f"{backend} {place}"]

    def caches(self) -> dict[str, Any]:
        """CACHES: every backend that there is, in every place."""
        configured: dict[str, Any] = {
            "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
        }
        for backend in available():
            path, options = BACKENDS[backend]
            for place, (location, own) in self.places.items():
                configured[f"{backend} {place}"] = {
                    "BACKEND": path,
                    "LOCATION": list(location),
                    "OPTIONS": {**options, **(own if backend == "SafeCache" else {})},
                }
        return configured

    def round_trip(self) -> float:
        """Seconds of the shortest exchange over the slow network, the median."""
        times = []
        with RawSocket(self.address("far")) as connection:
            for _ in range(ECHO_ROUNDS):
                started = time.perf_counter()
                connection.ask(b"version\r\n", b"\r\n")
                times.append(time.perf_counter() - started)
        return statistics.median(times)


def available() -> list[str]:
    """The backends that can be imported here: pylibmc is optional."""
    return [name for name in BACKENDS if name != "PyLibMCCache" or _has("pylibmc")]


def _has(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def memcached(program: str) -> Iterator[str]:
    """A fresh server of its own; gives its address.

    With one thread: else each connection is served by one of four for as long as it
    lives, and which processor that one runs on decides what a round trip takes.
    """
    server = Memcached(program, free_port(), "-t", "1")
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


@contextmanager
def stage() -> Iterator[Stage]:
    """Everything started, Django set up; all of it ended again.

    SafeCache is measured as in production: with the app installed, every call counted,
    and the counts stored in SQLite by the ingest thread. Raises `RuntimeError` if that
    does not work, `SystemExit` without memcached.
    """
    program = shutil.which("memcached")
    if program is None:
        sys.exit("this measures the real memcached, which is not on PATH")
    with ExitStack() as started:
        servers = [started.enter_context(memcached(program)) for _ in range(SERVERS)]
        proxy = started.enter_context(DelayingProxy(servers, ROUND_TRIP / 2))
        folder = started.enter_context(tempfile.TemporaryDirectory())
        ready = Stage(program, servers, proxy.addresses)
        _set_up_django(ready, folder)
        started.callback(_close_caches)
        _assert_counted(ready)
        yield ready


def _set_up_django(ready: Stage, folder: str) -> None:
    settings.configure(
        CACHES=ready.caches(),
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{folder}/counts.sqlite3",
            }
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django_safecache",
        ],
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _assert_counted(ready: Stage) -> None:
    from django_safecache.apps import SafeCacheConfig
    from django_safecache.models import CacheDigest

    ready.cache("SafeCache").get("counted")
    ingest = SafeCacheConfig.ingest
    if not (ingest and ingest.flush() and CacheDigest.objects.exists()):
        raise RuntimeError("calls are not counted: these would not be the real figures")


def _close_caches() -> None:
    from django.core.cache import caches
    from django.db import connections

    from django_safecache.apps import SafeCacheConfig

    for cache in caches.all(initialized_only=True):
        getattr(cache, "disconnect_all", cache.close)()
    if SafeCacheConfig.ingest:
        SafeCacheConfig.ingest.close()
    connections.close_all()

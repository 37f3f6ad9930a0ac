"""The 421 Campfire keys by one `get_many`: SafeCache beside Django's own backends.

    tox run -e bench [-- --rounds 300 --json FILE]

One real memcached on loopback, values of 500 characters, all backends in one process
and in turns, medians. SafeCache is measured as in production: with the app installed,
every call counted, and the counts stored by the ingest thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "example_project"))

import django
from cache_server import Memcached, free_port
from django.conf import settings

DJANGOS = "django.core.cache.backends.memcached."
BACKENDS = {
    "SafeCache": "django_safecache.backend.SafeCache",
    "PyMemcacheCache": DJANGOS + "PyMemcacheCache",
    "PyLibMCCache": DJANGOS + "PyLibMCCache",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    program = shutil.which("memcached")
    if program is None:
        parser.exit(1, "this measures the real memcached, which is not on PATH\n")
    server = Memcached(program, free_port())
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            set_up(server.address, folder)
            result = {"machine": machine(server), **measure(arguments.rounds)}
    finally:
        server.stop()
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def set_up(address: str, folder: str) -> None:
    """Configure Django with all backends on one server, and a database for counts."""
    settings.configure(
        CACHES={
            name: {"BACKEND": path, "LOCATION": address}
            for name, path in available().items()
        }
        | {"default": {"BACKEND": BACKENDS["SafeCache"], "LOCATION": address}},
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


def available() -> dict[str, str]:
    """The backends that can be imported here: pylibmc is optional."""
    try:
        metadata.version("pylibmc")
    except metadata.PackageNotFoundError:
        return {n: path for n, path in BACKENDS.items() if n != "PyLibMCCache"}
    return BACKENDS


def measure(rounds: int) -> dict[str, object]:
    """Seconds of each backend's `get_many` and `get`, in turns; checks every answer."""
    from django.core.cache import caches

    keys = (ROOT / "example_project/campfire/seed/keys.txt").read_text().split()
    data = {key: (key + "é" + "v" * 500)[:500] for key in keys}
    assert caches["SafeCache"].set_many(data) == []
    many: dict[str, list[float]] = {name: [] for name in available()}
    one: dict[str, list[float]] = {name: [] for name in available()}
    for turn in range(rounds):
        key = keys[turn % len(keys)]
        for name in many:
            cache = caches[name]
            started = time.perf_counter()
            found = cache.get_many(keys)
            many[name].append(time.perf_counter() - started)
            assert found == data
            started = time.perf_counter()
            value = cache.get(key)
            one[name].append(time.perf_counter() - started)
            assert value == data[key]
    return {
        "keys": len(keys),
        "rounds": rounds,
        "get_many": {name: statistics.median(times) for name, times in many.items()},
        "get": {name: statistics.median(times) for name, times in one.items()},
    }


def machine(server: Memcached) -> dict[str, object]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "memcached": server.name.split(",")[0],
        **{
            name: metadata.version(name)
            for name in (
                "Django",
                "pymemcache",
                *(["pylibmc"] * ("PyLibMCCache" in available())),
            )
        },
    }


def report(result: dict[str, object]) -> None:
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    for work in ("get_many", "get"):
        times = result[work]
        count = f"{result['keys']} keys" if work == "get_many" else "1 key"
        print(f"\n{work} of {count}, median of {result['rounds']}, recording on")
        for name, seconds in times.items():
            ratio = seconds / times["SafeCache"]
            print(f"  {name:<16} {seconds * 1e3:8.3f} ms   {ratio:6.2f} x")


if __name__ == "__main__":
    main()

"""The demo: one large read breaks plain pymemcache, and does not break SafeCache.

    python example_project/demo.py [--exit] [--port PORT]

It is a check, not a show: the exit code is 1 when anything it promises did not
happen. Everything it starts listens on loopback and ends with it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

import django
from cache_server import CacheServer, cache_server, free_port
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from site_server import SiteServer
from terminal import Terminal

from django_safecache.testing import Faults, LocalMemcached

PROJECT = Path(__file__).resolve().parent
DEMO_DIR = Path(os.environ.get("CAMPFIRE_VAR", PROJECT / "var")).resolve() / "demo"


def main() -> int:
    """Run the demo; the result is the exit code."""
    options = parse_arguments()
    terminal = Terminal()
    signal.signal(signal.SIGINT, end_in_order)
    signal.signal(signal.SIGTERM, end_in_order)
    try:
        return run(terminal, SiteServer(options.port, DEMO_DIR), options.exit)
    except KeyboardInterrupt:
        terminal.line("Ended.")
        return 130
    except (OSError, RuntimeError) as error:
        terminal.line(f"The demo cannot go on: {error}")
        return 1
    except Exception as error:  # a promise can break in any way; the log says where
        logging.getLogger("demo").exception("The demo broke")
        terminal.promise(f"No exception: {type(error).__name__}: {error}", kept=False)
        terminal.conclude()
        return 1


def run(terminal: Terminal, site: SiteServer, ends: bool) -> int:
    cache = cache_server(free_port())
    # The server of 2011: drops a connection that holds more without a line end.
    old = LocalMemcached(
        version="1.4.3-rc1", faults=Faults(max_unterminated_bytes=1024)
    )
    with old, running(cache), django_set_up(cache.address, old.address):
        terminal.section("Campfire: a page from 421 cached fragments, in one read")
        terminal.fact("cache", f"{cache.name}, on {cache.address}")
        terminal.fact("files", os.path.relpath(DEMO_DIR))
        load_room(terminal)
        # It imports models, which need the set-up above.
        import_module("walkthrough").walk(terminal, cache, old)
        kept = terminal.conclude()
        if kept and not ends:
            site.serve(terminal)
    return 0 if kept else 1


def load_room(terminal: Terminal) -> None:
    out = io.StringIO()
    call_command("load_room", stdout=out)
    for line in out.getvalue().splitlines():
        terminal.fact("load_room", line)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--exit", action="store_true", help="end instead of serving")
    parser.add_argument("--port", type=port, help="serve there (8000, or a free one)")
    return parser.parse_args()


def port(given: str) -> int:
    """A port that can be asked for; argparse reports the ValueError."""
    if not 0 < int(given) < 65536:
        raise ValueError
    return int(given)


def end_in_order(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, once.

    Ctrl-C comes twice under tox, from the terminal and from tox, and a kill follows
    half a second later: the second must not interrupt the ending of what was started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + signum)


@contextlib.contextmanager
def running(cache: CacheServer) -> Iterator[None]:
    cache.start()
    try:
        yield
    finally:
        cache.stop()


@contextlib.contextmanager
def django_set_up(cache_address: str, old_address: str) -> Iterator[None]:
    """The example's settings, with files of the demo's own, fresh each time."""
    shutil.rmtree(DEMO_DIR, ignore_errors=True)
    DEMO_DIR.mkdir(parents=True)
    # In the environment, because the site it serves later is to have them too.
    os.environ.update(
        DJANGO_SETTINGS_MODULE="config.settings",
        CAMPFIRE_VAR=str(DEMO_DIR),
        CAMPFIRE_DATABASE=str(DEMO_DIR / "campfire.sqlite3"),
        CAMPFIRE_MEMCACHED=cache_address,
    )
    settings.CACHES["old"] = {
        "BACKEND": "django_safecache.backend.SafeCache",
        "LOCATION": old_address,
    }
    settings.LOGGING["handlers"]["console"] = {
        "class": "logging.FileHandler",
        "filename": DEMO_DIR / "demo.log",
    }
    django.setup()
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        for cache in caches.all(initialized_only=True):
            cache.disconnect_all()
        connections.close_all()


if __name__ == "__main__":
    sys.exit(main())

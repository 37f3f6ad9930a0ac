"""What the demo shows, in order. Needs Django set up and the room loaded."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pymemcache
from cache_server import CacheServer
from campfire.fragments import load_fragments, loads_noted, transcript_keys
from campfire.models import Room
from django.core.cache import caches
from django.test import Client
from ledger import show_counts, show_mail
from pymemcache.exceptions import MemcacheError
from terminal import Terminal

from django_safecache.testing import LocalMemcached

RECOVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Page:
    """A transcript as its reader got it."""

    status: int
    fragments: int
    from_cache: int
    from_database: int
    duration: float

    @property
    def complete(self) -> bool:
        return self.status == 200 and self.fragments == 421


def walk(terminal: Terminal, cache: CacheServer, old: LocalMemcached) -> None:
    """All of it; the promises are counted by `terminal`."""
    keys = transcript_keys(Room.objects.get())
    fragments = load_fragments(keys)
    caches["old"].set_many(fragments)
    plain_pymemcache(terminal, old, keys)
    through_safecache(terminal, old, fragments)
    pages = cache_stops(terminal, cache)
    show_counts(
        terminal,
        hits=len(keys) + sum(page.from_cache for page in pages),
        loaded=sum(page.from_database for page in pages),
    )
    show_mail(terminal)


def plain_pymemcache(terminal: Terminal, old: LocalMemcached, keys: list[str]) -> None:
    """One line of all keys, as clients send it."""
    terminal.section("(a) All keys on one line, through plain pymemcache")
    made = [caches["old"].make_key(key) for key in keys]
    line = len("get " + " ".join(made) + "\r\n")
    terminal.fact("server", f"{old.address}, behaves like memcached 1.4.3-rc1:")
    terminal.fact("", "drops a connection with over 1,024 bytes and no line end")
    client = pymemcache.Client(old.address, connect_timeout=2, timeout=2)
    try:
        terminal.fact("get 5 keys", f"{len(client.get_many(made[:5]))} of 5")
        terminal.fact(f"get {len(made)} keys", f"one line of {line:,} bytes")
        came_to = f"{len(client.get_many(made))} of {len(made)}"
        broke = False
    except (MemcacheError, OSError) as error:
        came_to = f"{type(error).__name__}: {error}"
        broke = True
    finally:
        client.close()
    terminal.promise(f"It breaks the connection: {came_to}", kept=broke)


def through_safecache(
    terminal: Terminal, old: LocalMemcached, fragments: dict[str, str]
) -> None:
    """The same keys on the same server."""
    terminal.section("(b) The same keys on the same server, through SafeCache")
    old.clear_record()
    with loads_noted() as loaded:
        started = time.perf_counter()
        found = caches["old"].get_many(fragments)
        duration = time.perf_counter() - started
    lines = [line for line in old.lines if line.startswith(b"get ")]
    longest = max(map(len, lines), default=0)
    terminal.fact("lines", f"{len(lines)}, the longest of {longest:,} bytes")
    terminal.fact("took", f"{duration * 1000:.1f} ms")
    terminal.promise(
        f"{len(found)} of {len(fragments)} from the cache, each as it was stored",
        kept=found == fragments and not loaded,
    )


def cache_stops(terminal: Terminal, cache: CacheServer) -> list[Page]:
    """The same page with the cache running, stopped, and started again."""
    terminal.section("(c) The transcript page, and the cache stops in the middle")
    terminal.line(
        f"  {'cache':<18}{'status':>6}{'fragments':>11}{'from cache':>12}"
        f"{'from database':>15}{'ms':>8}"
    )
    first = row(terminal, "empty", transcript())
    second = row(terminal, "filled", transcript())
    cache.stop()
    third = row(terminal, "stopped", transcript())
    fourth = row(terminal, "still stopped", transcript())
    cache.start()
    started = time.monotonic()
    pages = [transcript()]
    while pages[-1].from_database and time.monotonic() - started < RECOVERY_SECONDS:
        time.sleep(0.1)
        pages.append(transcript())
    recovery = time.monotonic() - started
    row(terminal, "started again", pages[-1])
    pages[:0] = [first, second, third, fourth]
    terminal.promise(
        "With the cache, the page comes from the cache",
        kept=second.complete and second.from_cache == 421,
    )
    terminal.promise(
        "Without it, the same page comes from the database",
        kept=third.complete and third.from_database == 421,
    )
    terminal.promise(
        f"Every page was complete, all {len(pages)} of them",
        kept=all(page.complete for page in pages),
    )
    terminal.promise(
        f"{recovery:.1f} s after its start the cache was in use again",
        kept=pages[-1].from_cache == 421,
    )
    return pages


def transcript() -> Page:
    """Ask for the room's page and count what is in it."""
    client = Client(raise_request_exception=False, SERVER_NAME="127.0.0.1")
    started = time.perf_counter()
    response = client.get(Room.objects.get().get_absolute_url())
    duration = time.perf_counter() - started
    html = response.content.decode()
    told = re.search(r"(\d+) from the cache, (\d+) from the database", html)
    from_cache, from_database = map(int, told.groups()) if told else (0, 0)
    return Page(
        response.status_code,
        html.count('<article class="fragment '),
        from_cache,
        from_database,
        duration,
    )


def row(terminal: Terminal, label: str, page: Page) -> Page:
    terminal.line(
        f"  {label:<18}{page.status:>6}{page.fragments:>11}{page.from_cache:>12}"
        f"{page.from_database:>15}{page.duration * 1000:>8.1f}"
    )
    return page

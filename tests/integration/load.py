"""Readers of the transcript: a process that asks for the page and checks every one.

    python load.py JOURNAL RESULT PAGES_A_SECOND URL...

until its standard input ends. A page is stale when a message in it is older than an
edit that the journal had before the page was asked for.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

from journal import Follower, shown

CLIENTS = 6
HANG = 30.0
"""Seconds after which a page is given up: no promise of any timing is that late."""

FRAGMENT = re.compile(r'<article class="fragment [^"]*" id="message-(\d+)">')
SOURCES = re.compile(r"(\d+) from the cache, (\d+) from the database")


@dataclass(frozen=True)
class Page:
    """An answer, or status 0 and `error` where there was none."""

    began: float
    duration: float
    status: int
    complete: bool = False
    """All fragments, in order, each with its own text."""
    from_cache: int = 0
    from_database: int = 0
    stale: int = 0
    error: str = ""


@dataclass
class Sighting:
    """A message that was shown older than `expected`, by pages that began then."""

    message: int
    shown: int
    expected: int
    began: list[float] = field(default_factory=list)


class Readers:
    """Ask for pages in turn, in threads. What they saw is in `pages`, `sightings`."""

    def __init__(
        self, journal: Path, urls: Sequence[str], messages: Sequence[int]
    ) -> None:
        self.pages: list[Page] = []
        self.sightings: dict[tuple[int, int, int], Sighting] = {}
        self._urls = cycle(urls)
        self._messages = list(messages)
        self._follower = Follower(journal)
        self._revisions: dict[int, int] = {}
        self._lock = threading.Lock()

    def read_until(self, stop: threading.Event, pause: float) -> None:
        """One thread's part: a page at most every `pause` seconds."""
        next_page = time.monotonic()
        while not stop.wait(max(next_page - time.monotonic(), 0.0)):
            next_page = max(next_page, time.monotonic() - pause) + pause
            self._read()

    def close(self) -> None:
        self._follower.close()

    def _read(self) -> None:
        with self._lock:
            for edit in self._follower.new():
                self._revisions[edit.message] = edit.revision
            expected = dict(self._revisions)
            url = next(self._urls)
        began = time.monotonic()
        try:
            status, html = get(url)
        except (OSError, http.client.HTTPException) as error:
            page = Page(began, time.monotonic() - began, 0, error=repr(error))
        else:
            page = self._checked(began, status, html, expected)
        with self._lock:
            self.pages.append(page)

    def _checked(
        self, began: float, status: int, html: str, expected: dict[int, int]
    ) -> Page:
        duration = time.monotonic() - began
        revisions, complete = fragments(html, self._messages)
        stale = [
            (message, revisions[message], revision)
            for message, revision in expected.items()
            if message in revisions and revisions[message] < revision
        ]
        with self._lock:
            for seen in stale:
                self.sightings.setdefault(seen, Sighting(*seen)).began.append(began)
        sources = SOURCES.search(html)
        from_cache, from_database = map(int, sources.groups()) if sources else (0, 0)
        return Page(
            began,
            duration,
            status,
            complete,
            from_cache,
            from_database,
            len(stale),
        )


def fragments(html: str, messages: Sequence[int]) -> tuple[dict[int, int], bool]:
    """The revision of each message shown, and whether all are, in order, as theirs."""
    # A list that alternates: what is before, message, text, message, text...
    _, *parts = FRAGMENT.split(html)
    numbers = [int(number) for number in parts[::2]]
    seen = [shown(text) for text in parts[1::2]]
    revisions = {n: revision for n, (revision, _) in zip(numbers, seen, strict=True)}
    own = all(whose in (None, n) for n, (_, whose) in zip(numbers, seen, strict=True))
    return revisions, own and numbers == list(messages)


def get(url: str) -> tuple[int, str]:
    """On a connection of its own, so that all workers get their part."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=HANG)
    try:
        connection.request("GET", parts.path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def main() -> None:
    journal, result, rate, *urls = sys.argv[1:]
    keys = Path(__file__).parents[2] / "example_project/campfire/seed/keys.txt"
    messages = [int(key.split("/")[1]) for key in keys.read_text().split()]
    readers = Readers(Path(journal), urls, messages)
    stop = threading.Event()
    pause = CLIENTS / float(rate)
    threads = [
        threading.Thread(target=readers.read_until, args=(stop, pause))
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
        time.sleep(pause / CLIENTS)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    readers.close()
    seen = {
        "pages": [asdict(page) for page in readers.pages],
        "sightings": [asdict(seen) for seen in readers.sightings.values()],
    }
    Path(result).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()

"""A site that tells, for each request, what its cache gave it for each key.

What it tells is what the calls returned, and it is kept in a journal as well, for
requests whose answer gets lost. What the tables ought to have in every column is kept
by an observer of its own. Both are written at once, a line each, so that a process that
is killed has told everything up to then.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from django.contrib.auth.models import Group
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from django_safecache.memcached.outcomes import Outcome, observers

KEYS = 16
KEYS_OF_A_REQUEST = 6
FOLDER = Path(os.environ["EXACT_FOLDER"])

Asked = dict[str, Counter[str]]
"""By key group, how many keys were hits, misses, unavailable, stores, loaded."""


class Pen:
    """Appends lines to a file of the process, each with one write."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, told: object) -> None:
        file = FOLDER / f"{self._name}-{os.getpid()}"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(fd, json.dumps(told).encode() + b"\n")
        os.close(fd)


class Witness:
    """An observer that writes down all figures of every outcome."""

    def __init__(self) -> None:
        self._pen = Pen("witness")

    def observe(self, outcome: Outcome) -> None:
        figures = Counter(failure.kind for failure in outcome.failures)
        figures.update(
            calls=1,
            lines=outcome.lines,
            hits=outcome.hits,
            misses=outcome.misses,
            unavailable=outcome.unavailable,
            loaded=outcome.loaded,
            stores=outcome.stored,
            deletes=outcome.deleted,
            retries=outcome.retries,
            splits=outcome.splits,
            bytes_sent=outcome.bytes_sent,
            bytes_received=outcome.bytes_received,
        )
        self._pen.write([time.time(), {name: n for name, n in figures.items() if n}])


_asked = Pen("asked")


def watch() -> None:
    observers.connect(Witness())


def ask(number: int) -> Asked:
    """Use the cache as the request of that number does, and tell what it gave.

    Most keys are shared by all requests; one is nobody else's, and a miss.
    """
    keys = [
        f"k/{(number * 5 + step) % KEYS:02}/shared"
        for step in range(KEYS_OF_A_REQUEST - 1)
    ]
    keys.append(f"k/{number % KEYS:02}/{number}")
    counts: Asked = defaultdict(Counter)
    result = cache.read_many(keys)
    for name, its in (
        ("hits", result.found),
        ("misses", result.missing),
        ("unavailable", result.unavailable),
    ):
        _count(counts, name, its)
    missing = [key for key in result.missing if key.endswith("shared")]
    failed = cache.set_many(dict.fromkeys(missing, "x" * 200))
    _count(counts, "unavailable", failed)
    _count(counts, "stores", [key for key in missing if key not in failed])

    def load(keys: Sequence[str]) -> dict[str, int]:
        _count(counts, "loaded", keys)
        return dict.fromkeys(keys, number)

    cache.get_or_load_many([f"load/{number}/{n}" for n in range(2)], load)
    _asked.write([number, counts])
    return counts


def _count(counts: Asked, name: str, keys: Sequence[str]) -> None:
    for key in keys:
        counts[key.rpartition("/")[0] if key[0] == "k" else "load"][name] += 1


class WrongError(Exception):
    """What a request ends with that writes into the database, and then fails."""

    def __init__(self, asked: Asked) -> None:
        super().__init__("something went wrong")
        self.asked = asked


class TellAllTheSame:
    """Middleware: the answer of a request that failed says what it was given."""

    def __init__(self, get_response):
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        if isinstance(error, WrongError):
            return JsonResponse(error.asked, status=500)
        return None


@transaction.non_atomic_requests
def asked(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse(ask(number))


def rolled_back(request: HttpRequest, number: int) -> HttpResponse:
    Group.objects.create(name=f"of request {number}")
    raise WrongError(ask(number))


urlpatterns = [
    path("asked/<int:number>", asked),
    path("rolled-back/<int:number>", rolled_back),
]

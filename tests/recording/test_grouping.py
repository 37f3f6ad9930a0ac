"""How well real errors are grouped: the figures, and every group that is not a cause.

    pytest -s tests/recording/test_grouping.py

prints them.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import defaultdict
from dataclasses import dataclass

import pytest
from observed import Clock, make_outcome
from real_errors import (
    Servers,
    of_a_site,
    of_pylibmc,
    of_pymemcache,
    of_safecache,
)

from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import CONSEQUENCES, Recorder

# Its fixtures take seconds, and are of the module.
pytestmark = pytest.mark.xdist_group("grouping")


@dataclass(frozen=True)
class Figure:
    """Of errors with known causes: how the rules group them."""

    events: int
    causes: int
    by_message: int
    groups: int
    merged: set[tuple[str, ...]]
    """Causes that are one group."""
    split: dict[str, int]
    """Causes that are several groups, and how many."""
    messages: dict[str, set[str]]

    def __str__(self):
        return (
            f"{self.events:,} errors of {self.causes} causes: {self.by_message:,} exact"
            f" messages, {self.groups} groups; causes in one group: "
            f"{sorted(self.merged) or 'none'}; in several: {self.split or 'none'}"
        )


def figure(events):
    """`events` are cause, exact message and what the recorder makes of it."""
    events = list(events)
    fingerprints, causes = defaultdict(set), defaultdict(set)
    exact, messages = set(), defaultdict(set)
    for cause, text, found in events:
        fingerprints[cause].add(found.fingerprint)
        causes[found.fingerprint].add(cause)
        exact.add((found.exception, text))
        messages[cause].add(
            f"{found.kind} {found.exception} {found.errno} {found.message}"
        )
    return Figure(
        events=len(events),
        causes=len(fingerprints),
        by_message=len(exact),
        groups=len(causes),
        merged={tuple(sorted(those)) for those in causes.values() if len(those) > 1},
        split={c: len(groups) for c, groups in fingerprints.items() if len(groups) > 1},
        messages=messages,
    )


def told(library, figure):
    print(f"\n{library}: {figure}")
    for cause, messages in figure.messages.items():
        for message in sorted(messages):
            print(f"  {cause}: {message}")


def logged(events):
    """What the recorder makes of exceptions that a site logs."""
    return [
        (event.cause, str(event.exception), _logged(event.exception))
        for event in events
    ]


def _logged(exception):
    recorder, before = Recorder(clock=Clock()), DigestHandler.recorder
    record = logging.LogRecord(
        "site", logging.ERROR, "", 0, "failed", (), (type(exception), exception, None)
    )
    DigestHandler.recorder = recorder
    try:
        DigestHandler().emit(record)
    finally:
        DigestHandler.recorder = before
    (cause,) = recorder.snapshot().causes
    return cause


@pytest.fixture(scope="module")
def servers():
    with Servers() as servers:
        yield servers


@pytest.fixture(scope="module")
def by_safecache(servers):
    events = []
    for cause, failure, keys in of_safecache(servers):
        if failure.kind not in CONSEQUENCES:
            recorder = Recorder(clock=Clock())
            recorder.observe(make_outcome(keys=keys, failures=(failure,)))
            (found,) = recorder.snapshot().causes
            events.append((cause, failure.text, found))
    return events


@pytest.fixture(scope="module")
def by_pymemcache(servers):
    return logged(of_pymemcache(servers))


@pytest.fixture(scope="module")
def by_pylibmc(servers):
    return logged(of_pylibmc(servers, pylibmc_or_skip()))


@pytest.fixture
def by_a_site(db, servers):
    return logged(of_a_site(servers))


class TestFigures:
    def test_failures_of_safecache_are_one_group_a_cause(self, by_safecache):
        result = figure(by_safecache)
        told("SafeCache", result)
        assert (result.merged, result.split) == (set(), {})
        assert result.causes == 11

    def test_errors_of_pymemcache_are_one_group_a_cause(self, by_pymemcache):
        result = figure(by_pymemcache)
        told("pymemcache", result)
        assert (result.merged, result.split) == (set(), {})
        assert result.causes == 14

    def test_errors_of_pylibmc_are_told_apart_as_far_as_it_tells_them_apart(
        self, by_pylibmc
    ):
        result = figure(by_pylibmc)
        told("pylibmc", result)
        # The server says so and closes; the client may see no more than a reset.
        assert result.merged <= {("reset", "too many connections")}
        # A get does not say why it could not connect, and a set does.
        assert set(result.split) <= {"too many connections", "refused", "no such host"}
        assert max(result.split.values(), default=1) <= 2
        assert result.causes == 13

    def test_exceptions_of_a_site_are_one_group_a_cause_if_they_have_words(
        self, by_a_site
    ):
        result = figure(by_a_site)
        told("a site", result)
        # Nothing but the key is in a KeyError; where it was raised is a facet.
        assert result.merged == {("no such key", "no such setting")}
        assert result.split == {}
        assert result.causes == 16

    def test_all_together(self, by_safecache, by_pymemcache, by_pylibmc, by_a_site):
        """What is one group across libraries is what they raise alike."""
        libraries = {
            "SafeCache": by_safecache,
            "pymemcache": by_pymemcache,
            "pylibmc": by_pylibmc,
            "site": by_a_site,
        }
        result = figure(
            (f"{library}: {cause}", text, found)
            for library, events in libraries.items()
            for cause, text, found in events
        )
        print(f"\nall: {result}")
        across = {
            causes
            for causes in result.merged
            if len({cause.partition(":")[0] for cause in causes}) > 1
        }
        assert across == {("pymemcache: timeout", "site: http: timeout")}


def pylibmc_or_skip():
    """It needs libmemcached to be built; where it has to be there, that is said."""
    try:
        return importlib.import_module("pylibmc")
    except ImportError:
        if os.environ.get("SAFECACHE_REQUIRE_PYLIBMC"):
            pytest.fail("SAFECACHE_REQUIRE_PYLIBMC is set, but there is no pylibmc")
        pytest.skip("pylibmc is not installed")

from __future__ import annotations

import threading

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.recording.causes import MAX_REMEMBERED, Causes
from django_safecache.recording.fingerprints import cause_of

RULES = Causes().of("epipe", "X", None, "one")

# What the rules look for, in any order.
words = st.sampled_from(
    [
        *("status code ", "HTTP 503", "404", "0x", "a", "F", "10.0.0.1:80", "4711"),
        *("-3", "+1.5", ",", "'", '"', "token=", "x" * 18, "3rd", " ", ":1:", "\n"),
        *("name 'x1' is not defined", "\\", "/srv/a1/b", "http://a/1", "[1, 2]"),
        *("21 Oct 2026", "\u0663", "%3D"),
    ]
)
texts = st.lists(words | st.text(max_size=3), max_size=12).map("".join)
told = st.tuples(
    texts, st.lists(words, max_size=2), st.sampled_from(["", "a:11211", "7", "x"])
)


def broken(cause):
    raise RuntimeError


class TestTheSitesOwnGrouping:
    def test_it_may_put_causes_together_its_own_way(self):
        causes = Causes(lambda cause: cause.kind)
        one = causes.of("epipe", "X", None, "one")
        two = causes.of("epipe", "Y", None, "two")
        assert one.fingerprint == two.fingerprint != RULES.fingerprint

    @pytest.mark.parametrize(
        "fingerprint",
        [None, lambda cause: None, broken, lambda cause: 17, lambda cause: " "],
    )
    def test_one_that_fails_or_abstains_leaves_the_rules(self, fingerprint):
        with structlog.testing.capture_logs():
            assert Causes(fingerprint).of("epipe", "X", None, "one") == RULES

    def test_that_it_fails_is_logged_once(self):
        causes = Causes(broken)
        with structlog.testing.capture_logs() as logged:
            for text in ("one", "two"):
                causes.of("epipe", "X", None, text)
        assert logged == [
            {
                "event": "fingerprint_failed",
                "log_level": "warning",
                "what": "raised RuntimeError",
            }
        ]

    def test_a_name_as_long_as_a_book_is_a_name(self):
        long = Causes(lambda cause: "x" * 1_000_000).of("epipe", "X", None, "one")
        assert len(long.fingerprint) == len(RULES.fingerprint)

    def test_it_is_asked_once_for_each_cause_whatever_the_texts(self):
        asked = []
        causes = Causes(asked.append)
        for name in ("ana", "bob", "eve"):
            for number in (3, 17, 3.5):
                causes.of("epipe", "X", None, f"user '{name}' is late by {number}")
        assert len(asked) == 1

    def test_it_may_itself_meet_a_failure(self):
        """Say, it uses the cache, which fails too: that failure is grouped by the
        rules, and the grouping is not asked without end."""

        def fingerprint(cause):
            nested.append(causes.of("timeout", "X", None, f"{cause.message} again"))
            return "mine"

        nested, causes = [], Causes(fingerprint)
        assert causes.of("epipe", "X", None, "one").fingerprint != RULES.fingerprint
        assert nested == [Causes().of("timeout", "X", None, "one again")]

    def test_other_threads_do_not_wait_for_a_slow_one_nor_skip_it(self):
        inside, go_on = threading.Event(), threading.Event()

        def fingerprint(cause):
            if cause.message == "slow":
                inside.set()
                assert go_on.wait(30)
            return "mine"

        causes = Causes(fingerprint)
        thread = threading.Thread(
            target=causes.of, args=("epipe", "X", None, "slow"), daemon=True
        )
        thread.start()
        assert inside.wait(30)
        assert causes.of("epipe", "X", None, "one").fingerprint != RULES.fingerprint
        go_on.set()
        thread.join()


class TestMemory:
    def test_it_is_bounded_whatever_the_texts(self):
        causes = Causes()
        for number in range(3 * MAX_REMEMBERED):
            causes.of("epipe", "X", None, f"text {in_letters(number)}")
        assert len(causes._by_shape._causes) == MAX_REMEMBERED
        assert len(causes._regrouped._causes) == MAX_REMEMBERED

    def test_an_endless_text_is_not_kept(self):
        causes = Causes()
        causes.of("server_error", "X", None, "a " * 10_000_000, keys=["a"])
        assert sum(len(text) for *_, text in causes._by_shape._causes) <= 2000

    def test_one_more_than_are_remembered_are_not_all_forgotten(self):
        asked = []
        causes = Causes(asked.append)
        for _ in range(3):
            for number in range(MAX_REMEMBERED + 1):
                causes.of("epipe", "X", None, f"text {in_letters(number)}")
        assert len(asked) < 1.5 * MAX_REMEMBERED

    @given(st.lists(told, min_size=2, max_size=4))
    def test_what_is_remembered_is_what_the_rules_say(self, failures):
        """Whatever was remembered first, of another number, key or server."""
        causes = Causes()
        for text, keys, server in failures:
            for digits in ("0123456789", "9876543210", "1111111111"):
                text = text.translate(str.maketrans("0123456789", digits))
                found = causes.of("epipe", "X", None, text, keys=keys, server=server)
                fresh = cause_of("epipe", "X", None, text, keys=keys, server=server)
                assert found == fresh

    def test_texts_that_differ_by_numbers_are_remembered_as_one(self):
        causes = Causes()
        for number in range(1000, 2000):
            causes.of("epipe", "X", None, f"text {number}")
        assert len(causes._by_shape._causes) == 1


def in_letters(number):
    return str(number).translate(str.maketrans("0123456789", "abcdefghij"))

from __future__ import annotations

import threading

import pytest
import structlog

from django_safecache.recording.causes import MAX_REMEMBERED, Causes

RULES = Causes().of("epipe", "X", None, "one")


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

    def test_it_is_asked_once_for_each_text_not_for_each_failure(self):
        asked = []
        causes = Causes(asked.append)
        for _ in range(10):
            causes.of("epipe", "X", None, "one")
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
            causes.of("epipe", "X", None, f"text {number}")
        assert len(causes._known) <= MAX_REMEMBERED

    def test_an_endless_text_is_not_kept(self):
        causes = Causes()
        causes.of("server_error", "X", None, "x" * 10_000_000)
        assert sum(len(text) for *_, text in causes._known) <= 2000

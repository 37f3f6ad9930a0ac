from __future__ import annotations

import logging
import time

import pytest

from django_safecache.trouble import JITTER, MAX_PAUSE, Trouble


def pauses(trouble, interval=10):
    return [trouble.pause(interval) for _ in range(200)]


def about(seconds):
    return seconds * (1 - JITTER), seconds * (1 + JITTER)


class TestPause:
    @pytest.mark.parametrize(
        ("failures", "seconds"),
        [(0, 10), (1, 10), (2, 20), (3, 40), (4, 80), (5, 120), (500, 120)],
    )
    def test_it_doubles_with_every_failure_after_the_first(self, failures, seconds):
        trouble = Trouble("default")
        for _ in range(failures):
            trouble.add(OSError("gone"))
        low, high = about(seconds)
        assert all(low <= pause <= high for pause in pauses(trouble))

    def test_it_is_the_interval_again_once_something_was_stored(self):
        trouble = Trouble("default")
        for _ in range(9):
            trouble.add(OSError("gone"))
        trouble.over()
        assert max(pauses(trouble)) <= about(10)[1]
        assert trouble.errors.count == 9

    def test_an_interval_above_the_longest_pause_stays(self):
        trouble = Trouble("default")
        for _ in range(9):
            trouble.add(OSError("gone"))
        assert min(pauses(trouble, 3600)) > MAX_PAUSE

    def test_processes_do_not_stay_in_step(self):
        assert len(set(pauses(Trouble("default")))) > 100


class TestTold:
    def test_once_a_minute(self, caplog, monkeypatch):
        now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        trouble = Trouble("default")
        with caplog.at_level(logging.WARNING, "django_safecache"):
            for _ in range(5):
                trouble.add(OSError("gone"))
            assert len(caplog.records) == 1
            now += 60
            trouble.add(OSError("gone"))
        assert len(caplog.records) == 2
        assert "errors=6" in caplog.records[1].getMessage()

    def test_without_names_numbers_and_values(self):
        trouble = Trouble("default")
        trouble.add(OSError(2002, "Can't connect to 'db.example.com' (115)"))
        assert trouble.errors.last.startswith("OSError: ")
        assert "example" not in trouble.errors.last
        assert "115" not in trouble.errors.last
        assert trouble.errors.last_at is not None

from __future__ import annotations

import os
import time

import pytest
from observed import make_failure, make_outcome

from django_safecache.recording.leftovers import MAX_AGE, Leftover, Leftovers
from django_safecache.recording.recorder import Recorder


@pytest.fixture
def leftover():
    recorder = Recorder(key_group=lambda key: "text", account=lambda: "acme")
    recorder.observe(make_outcome(keys=("a",), hits=1))
    recorder.observe(
        make_outcome(keys=("b",), unavailable=1, failures=(make_failure(),))
    )
    snapshot = recorder.snapshot()
    return Leftover(snapshot, 2, "OSError: gone", snapshot.taken)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "leftovers"


class TestLeftovers:
    def test_what_is_kept_is_found_until_its_file_is_deleted(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        ((file, found),) = Leftovers(folder, "site").each()
        assert found == leftover
        file.unlink()
        assert list(Leftovers(folder, "site").each()) == []

    def test_another_sites_are_left_alone(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        assert list(Leftovers(folder, "other").each()) == []

    def test_nobody_else_can_read_them(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        (file,) = folder.glob("*.json")
        assert file.stat().st_mode & 0o077 == 0
        assert folder.stat().st_mode & 0o077 == 0

    def test_a_folder_that_others_may_write_to_is_not_used(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        folder.chmod(0o777)
        assert list(Leftovers(folder, "site").each()) == []
        with pytest.raises(PermissionError, match="not this user's alone"):
            Leftovers(folder, "site").keep(leftover)

    def test_nor_one_behind_a_link(self, folder, leftover, tmp_path):
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(PermissionError):
            Leftovers(folder, "site").keep(leftover)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"snapshot": {"cells": 3}}'])
    def test_what_cannot_be_read_is_deleted(self, folder, leftover, text):
        Leftovers(folder, "site").keep(leftover)
        (file,) = folder.glob("*.json")
        file.write_text(text)
        assert list(Leftovers(folder, "site").each()) == []
        assert not file.exists()

    def test_what_nobody_could_store_for_a_week_is_deleted(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        (file,) = folder.glob("*.json")
        os.utime(file, (0, time.time() - MAX_AGE - 1))
        assert len(list(Leftovers(folder, "site").each())) == 1
        assert not file.exists()

    def test_one_process_at_a_time_is_at_it(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        for _ in Leftovers(folder, "site").each():
            assert list(Leftovers(folder, "site").each()) == []
        assert len(list(Leftovers(folder, "site").each())) == 1

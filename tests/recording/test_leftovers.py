from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from django.db import connection
from observed import make_failure, make_outcome

from django_safecache.apps import _leftovers
from django_safecache.ingest import Ingest
from django_safecache.models import CacheDigest, Writer
from django_safecache.recording.leftovers import (
    MAX_AGE,
    MAX_WRITING,
    Leftover,
    Leftovers,
)
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.snapshots import FlushErrors


@pytest.fixture
def leftover():
    recorder = Recorder(key_groups=lambda keys: ["text"], account=lambda: "acme")
    recorder.observe(make_outcome(keys=("a",), hits=1))
    recorder.observe(
        make_outcome(keys=("b",), unavailable=1, failures=(make_failure(),))
    )
    snapshot = recorder.snapshot()
    return Leftover(snapshot, FlushErrors(2, "OSError: gone", snapshot.taken))


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

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"snapshot": {"cells": 3}}', "[" * 100_000]
    )
    def test_what_cannot_be_read_is_deleted(self, folder, leftover, text, caplog):
        Leftovers(folder, "site").keep(leftover)
        (file,) = folder.glob("*.json")
        file.write_text(text)
        assert list(Leftovers(folder, "site").each()) == []
        assert not file.exists()
        assert "counts_lost" in caplog.text

    def test_what_nobody_could_store_for_a_week_is_not_stored_any_more(
        self, folder, leftover, caplog
    ):
        Leftovers(folder, "site").keep(leftover)
        (file,) = folder.glob("*.json")
        os.utime(file, (0, time.time() - MAX_AGE - 1))
        assert list(Leftovers(folder, "site").each()) == []
        assert not file.exists()
        assert "counts_lost" in caplog.text

    @pytest.mark.parametrize(
        ("ending", "age"), [("part", MAX_WRITING), ("refused", MAX_AGE)]
    )
    def test_nor_is_what_nobody_reads_kept_for_ever(self, folder, ending, age):
        folder.mkdir(mode=0o700)
        old, new = (folder / f"site-{pid}-1.{ending}" for pid in (1, 2))
        for file, seconds in ((old, age + 60), (new, age - 60)):
            file.touch()
            os.utime(file, (0, time.time() - seconds))
        assert list(Leftovers(folder, "site").each()) == []
        assert (old.exists(), new.exists()) == (False, True)

    def test_the_oldest_comes_first_and_what_is_postponed_last(self, folder, leftover):
        leftovers = Leftovers(folder, "site")
        for number in (2, 1):
            leftovers.keep(leftover)
            (file,) = folder.glob(f"site-{os.getpid()}-*.json")
            file.rename(folder / f"site-{10 - number}-{number}.json")
        (first, _), (second, _) = leftovers.each()
        assert (first.name, second.name) == ("site-9-1.json", "site-8-2.json")
        leftovers.postpone(first)
        assert next(iter(leftovers.each()))[0] == second

    def test_one_process_at_a_time_is_at_it(self, folder, leftover):
        Leftovers(folder, "site").keep(leftover)
        for _ in Leftovers(folder, "site").each():
            assert list(Leftovers(folder, "site").each()) == []
        assert len(list(Leftovers(folder, "site").each())) == 1


@pytest.mark.django_db(transaction=True)
class TestStoring:
    @pytest.fixture
    def leftovers(self, folder):
        return Leftovers(folder, "site")

    @pytest.fixture
    def ingest(self, leftovers):
        return Ingest(
            Recorder(),
            mode="thread",
            interval=10,
            database="default",
            zone=timezone.utc,
            leftovers=leftovers,
        )

    def test_one_that_is_refused_does_not_keep_back_others(
        self, folder, leftovers, leftover, ingest, caplog
    ):
        huge = replace(leftover.snapshot.occurrences[0], count=2**70)
        snapshot = replace(leftover.snapshot, occurrences=(huge,))
        # As another version would have it: problems that are told of nowhere.
        unknown = replace(leftover.snapshot, causes=())
        for refused in (snapshot, unknown):
            leftovers.keep(replace(leftover, snapshot=refused))
            ingest._store_leftovers()
        leftovers.keep(leftover)
        ingest._store_leftovers()
        assert CacheDigest.objects.filter(calls__gt=0).exists()
        assert not list(folder.glob("*.json"))
        assert list(folder.glob("*.refused"))
        assert "counts_lost" in caplog.text
        assert ingest.trouble.errors.count == 0

    def test_a_database_in_trouble_loses_nothing(
        self, folder, leftovers, leftover, ingest
    ):
        for _ in range(2):
            leftovers.keep(leftover)
        first, second = (file for file, _ in leftovers.each())
        with connection.schema_editor() as schema:
            schema.delete_model(CacheDigest)
        try:
            ingest._store_leftovers()
        finally:
            with connection.schema_editor() as schema:
                schema.create_model(CacheDigest)
        assert ingest.trouble.errors.count == 1
        assert next(file for file, _ in leftovers.each()) == second
        assert not first.exists()
        assert len(list(folder.glob("*.json"))) == 2
        ingest._store_leftovers()
        assert not list(folder.glob("*.json"))
        assert CacheDigest.objects.filter(calls__gt=0).exists()

    def test_what_is_left_out_is_told(self, leftovers, leftover, ingest, caplog):
        leftovers.keep(leftover)
        ingest._store_leftovers()
        later = leftover.snapshot.taken + timedelta(hours=1)
        Writer.objects.update(settled=later)
        leftovers.keep(leftover)
        ingest._store_leftovers()
        assert "counts_lost" in caplog.text


class TestSites:
    @pytest.fixture
    def name(self, settings, monkeypatch):
        def name(**changes):
            database = {"ENGINE": "django.db.backends.mysql", **changes}
            monkeypatch.setitem(settings.DATABASES, "other", database)
            return _leftovers("other")._site

        return name

    def test_another_key_or_file_or_service_is_another_site(self, settings, name):
        names = {name()}
        for options in ({"read_default_file": "/a"}, {"read_default_file": "/b"}):
            names.add(name(OPTIONS=options))
        settings.SECRET_KEY = "another"
        names.add(name())
        assert len(names) == 4

    def test_it_is_the_same_in_every_process(self, name):
        names = {name(OPTIONS={"pool": object()}) for _ in range(2)}
        assert len(names) == 1

    def test_without_a_key_there_is_none(self, settings):
        settings.SECRET_KEY = ""
        assert _leftovers("default") is None

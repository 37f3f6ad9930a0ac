from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.core.signals import request_finished
from django.db import DataError, OperationalError, connection, transaction
from observed import Clock, make_failure, make_outcome

from django_safecache.ingest import Ingest
from django_safecache.left_behind import LeftBehind
from django_safecache.models import CacheDigest, ProblemCount, ProblemSample, Writer
from django_safecache.recording import sightings
from django_safecache.recording.fingerprints import cause_of
from django_safecache.recording.leftovers import Leftover, Leftovers
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.sightings import Sighting
from django_safecache.recording.snapshots import FlushErrors


@pytest.fixture
def make_ingest():
    made = []

    def make(mode="manual", *, interval=0.02, database="default", **options):
        ingest = Ingest(
            options.pop("recorder", None) or Recorder(),
            mode=mode,
            interval=interval,
            database=database,
            zone=ZoneInfo("UTC"),
            **options,
        )
        made.append(ingest)
        return ingest

    yield make
    for ingest in made:
        ingest.close()
        if ingest._thread is not None:
            ingest._thread.join(10)


def stored_hits():
    return sum(CacheDigest.objects.values_list("hits", flat=True))


def stored_hits_of(ingest):
    # SQLite in memory, shared by threads, refuses a reader while one of them writes.
    with ingest._lock:
        return stored_hits()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestManual:
    @pytest.mark.django_db
    def test_totals_reach_the_database_when_told(self, make_ingest):
        ingest = make_ingest()
        ingest.connect()
        ingest.recorder.observe(make_outcome(hits=3))
        assert stored_hits() == 0
        assert ingest.flush()
        assert ingest.flush()
        assert stored_hits() == 3

    @pytest.mark.django_db
    def test_the_callers_transaction_goes_on_whatever_comes_of_it(self, make_ingest):
        """PostgreSQL takes no more statements after one that failed."""
        ingest = make_ingest()
        kind_too_long = cause_of("x" * 40, "E", None, "text")
        ingest.recorder.occurred(kind_too_long, sightings.here)
        with transaction.atomic():
            ingest.flush()
            assert not Writer.objects.filter(name="another").exists()

    @pytest.mark.django_db
    def test_off_stores_nothing(self, make_ingest):
        ingest = make_ingest("off")
        ingest.recorder.observe(make_outcome(hits=3))
        assert ingest.flush()
        assert not CacheDigest.objects.exists()
        assert not Writer.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestAProblemThatCannotBeStored:
    """It is the only one that is left out."""

    @pytest.fixture(params=["proxy refused", 2**70])
    def ingest(self, request, make_ingest):
        if connection.vendor == "mysql" and request.param == 2**70:
            pytest.skip("stores the largest number that there is room for")
        ingest = make_ingest()
        recorder = ingest.recorder
        for number in range(5):
            word = "abcde"[number]
            recorder.occurred(cause_of("application", "E", 7, f"Größe {word}"), seen)
        recorder.occurred(cause_of("application", "E", request.param, "no"), seen)
        recorder.observe(make_outcome(hits=3, failures=(make_failure(),)))
        return ingest

    def stored(self):
        counts = ProblemCount.objects.order_by("problem__message")
        told = dict(counts.values_list("problem__message", "count"))
        assert ProblemSample.objects.count() == len(told) == 6
        assert {f"Größe {word}": 1 for word in "abcde"}.items() < told.items()
        assert stored_hits() == 3

    def test_all_others_are_stored_and_so_are_the_counts(self, ingest):
        assert ingest.flush()
        self.stored()

    def test_so_they_are_within_a_transaction_of_the_caller(self, ingest):
        with transaction.atomic():
            assert ingest.flush()
        self.stored()

    def test_it_is_told_once_and_counted_as_dropped_while_it_is_held(self, ingest):
        for _ in range(4):
            assert ingest.flush()
        assert ingest.trouble.errors.count == 1
        writer = Writer.objects.get()
        assert (writer.dropped, writer.flush_errors) == (1, 1)
        assert writer.last_error

    def test_its_samples_do_not_wait_for_ever(self, ingest):
        ingest.flush()
        assert ingest.recorder.snapshot().samples == ()

    def test_it_is_left_out_of_what_a_process_left_behind(self, ingest, tmp_path):
        leftovers = Leftovers(tmp_path / "leftovers", "site")
        left = LeftBehind(leftovers, "default", ingest._write_left)
        left.keep(ingest.recorder.snapshot(), ingest.trouble.errors)
        left.store(time.monotonic() + 60)
        self.stored()
        assert not list(leftovers._folder.glob("*.refused"))

    def test_what_another_process_left_takes_none_of_this_ones_counts_along(
        self, make_ingest, tmp_path
    ):
        leftovers = Leftovers(tmp_path / "leftovers", "site")
        ingest = make_ingest(leftovers=leftovers)
        ingest.recorder.occurred(cause_of("application", "E", 7, "goes on"), seen)
        mine = ingest.recorder.snapshot()
        (cause,) = mine.causes
        others = replace(
            mine,
            writer=replace(mine.writer, name="another"),
            causes=(replace(cause, errno="no number"),),
        )
        leftovers.keep(Leftover(others, FlushErrors()))
        ingest._store_leftovers()
        assert ingest.trouble.errors.count == 1
        assert not list(leftovers.each())
        assert ingest.flush()
        assert ProblemCount.objects.get().count == 1
        assert ingest.recorder.snapshot().dropped == 0

    def test_it_is_tried_again_in_the_next_bucket_with_all_that_is_held(
        self, make_ingest
    ):
        clock = Clock()
        ingest = make_ingest(recorder=Recorder(clock=clock))
        cause = cause_of("application", "E", 7, "goes on")

        def refuse(execute, sql, params, *rest):
            if cause.fingerprint in repr(params):
                raise DataError("not this one")
            return execute(sql, params, *rest)

        ingest.recorder.occurred(cause, seen)
        with connection.execute_wrapper(refuse):
            assert ingest.flush()
        assert ingest.flush()
        assert not ProblemCount.objects.exists()
        clock.now += 300
        ingest.recorder.occurred(cause, seen)
        assert ingest.flush()
        assert list(ProblemCount.objects.values_list("count", flat=True)) == [1, 1]

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("can't start new thread"),
            SynchronousOnlyOperation("You cannot call this from an async context"),
        ],
    )
    def test_a_failure_that_is_not_of_a_problem_refuses_none(self, make_ingest, error):
        def fail(*args):
            raise error

        ingest = make_ingest()
        for word in "abc":
            ingest.recorder.occurred(cause_of("application", "E", 7, word), seen)
        with connection.execute_wrapper(fail):
            assert not ingest.flush()
        assert ingest.flush()
        assert ProblemCount.objects.count() == 3
        assert ingest.recorder.snapshot().dropped == 0

    def test_it_is_told_when_all_others_are_stored(self, ingest):
        def fail(execute, sql, *args):
            if CacheDigest._meta.db_table in sql:
                raise OperationalError("away")
            return execute(sql, *args)

        with connection.execute_wrapper(fail):
            assert not ingest.flush()
        assert ingest.recorder.snapshot().dropped == 0
        assert ingest.flush()
        assert ingest.recorder.snapshot().dropped == 1
        assert ingest.trouble.errors.count == 2


def seen():
    return Sighting("shop:view", lambda: "a stack")


class TestTrouble:
    @pytest.mark.django_db
    def test_a_missing_table_loses_nothing_and_is_counted(self, make_ingest):
        ingest = make_ingest()
        ingest.recorder.observe(make_outcome(hits=3))
        table = CacheDigest._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO hidden")
            assert not ingest.flush()
            assert not ingest.flush()
            cursor.execute(f"ALTER TABLE hidden RENAME TO {table}")
        ingest.recorder.observe(make_outcome(hits=1))
        assert ingest.flush()
        assert stored_hits() == 4
        assert Writer.objects.get().flush_errors == 2

    def test_a_database_that_is_not_configured_is_only_counted(self, make_ingest):
        ingest = make_ingest(database="nowhere")
        ingest.recorder.observe(make_outcome())
        assert not ingest.flush()
        assert ingest.trouble.errors.count == 1

    @pytest.mark.django_db
    def test_the_writers_row_says_why(self, make_ingest):
        ingest = make_ingest()
        ingest.trouble.add(OSError("gone"))
        ingest.recorder.observe(make_outcome())
        assert ingest.flush()
        writer = Writer.objects.get()
        assert (writer.flush_errors, writer.last_error) == (1, "OSError: gone")
        assert writer.last_error_at is not None

    @pytest.mark.django_db(transaction=True)
    def test_a_writer_reports_that_has_nothing_new(self, make_ingest):
        """It is idle, not silent."""
        clock = Clock()
        ingest = make_ingest(recorder=Recorder(clock=clock))
        ingest.recorder.observe(make_outcome())
        ingest.flush()
        clock.now += 3600
        assert ingest.flush()
        assert ingest.recorder.snapshot().cells == ()
        clock.now += 3600
        assert ingest.flush()
        assert Writer.objects.get().last_flush.timestamp() == clock.now

    def test_trouble_is_logged_once_a_minute(self, make_ingest, caplog):
        ingest = make_ingest(database="nowhere")
        ingest.recorder.observe(make_outcome())
        with caplog.at_level(logging.WARNING, "django_safecache"):
            for _ in range(5):
                ingest.flush()
            assert len(caplog.records) == 1
            ingest.trouble._logged_at -= 60
            ingest.flush()
        assert len(caplog.records) == 2
        assert "event='flush_failed'" in caplog.records[1].getMessage()
        assert "errors=6" in caplog.records[1].getMessage()

    @pytest.mark.django_db(transaction=True)
    def test_what_the_site_rolls_back_is_stored_again(self, make_ingest):
        clock = Clock()
        ingest = make_ingest(recorder=Recorder(clock=clock))
        ingest.recorder.observe(make_outcome(hits=3))
        clock.now += 3600
        with transaction.atomic():
            ingest.flush()
            transaction.set_rollback(True)
        assert stored_hits() == 0
        ingest.flush()
        assert stored_hits() == 3
        assert ingest.recorder.snapshot().cells == ()


@pytest.mark.django_db(transaction=True)
class TestThread:
    def test_the_first_outcome_starts_a_thread_that_stores(self, make_ingest):
        ingest = make_ingest("thread")
        ingest.connect()
        assert ingest._thread is None
        ingest.recorder.observe(make_outcome(hits=3))
        wait_until(lambda: stored_hits_of(ingest) == 3)
        ingest.recorder.observe(make_outcome(hits=2))
        wait_until(lambda: stored_hits_of(ingest) == 5)
        assert ingest._thread.daemon

    def test_many_first_outcomes_start_one_thread(self, make_ingest):
        ingest = make_ingest("thread")
        ingest.connect()
        threads = [
            threading.Thread(target=ingest.recorder.on_new_bucket) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("django_safecache.ingest") == 1

    def test_a_thread_that_counts_does_not_wait_for_one_that_stores(self, make_ingest):
        ingest = make_ingest("thread", interval=60)
        ingest.connect()
        with ingest._lock:  # as when the database does not answer
            ingest.recorder.observe(make_outcome(hits=3))
        assert ingest._thread.is_alive()

    def test_closing_stores_what_is_left_and_ends(self, make_ingest):
        ingest = make_ingest("thread", interval=60)
        ingest.connect()
        ingest.recorder.observe(make_outcome(hits=3))
        ingest.close()
        ingest._thread.join(10)
        assert not ingest._thread.is_alive()
        assert stored_hits() == 3
        assert Writer.objects.get().ended is not None

    def test_a_storm_of_failures_is_stored_while_it_goes_on(self, make_ingest):
        ingest = make_ingest("thread")
        ingest.connect()
        for _ in range(2000):
            ingest.recorder.observe(make_outcome(hits=1, failures=(make_failure(),)))
        wait_until(lambda: stored_hits_of(ingest) == 2000)
        ingest.close()
        assert sum(CacheDigest.objects.values_list("epipe", flat=True)) == 2000


class TestRequest:
    @pytest.mark.django_db(transaction=True)
    def test_the_end_of_a_request_stores_once_the_interval_has_passed(
        self, make_ingest
    ):
        ingest = make_ingest("request", interval=60)
        ingest.connect()
        ingest.recorder.observe(make_outcome(hits=3))
        ingest._request_finished()
        assert stored_hits() == 0
        ingest._next_flush -= 90
        ingest._request_finished()
        assert stored_hits() == 3

    def test_it_listens_to_the_end_of_requests_until_it_is_closed(self, make_ingest):
        ingest = make_ingest("request", database="nowhere")
        ingest.connect()
        receivers = len(request_finished.receivers)
        ingest.close()
        assert len(request_finished.receivers) == receivers - 1

    @pytest.mark.django_db(transaction=True)
    def test_it_does_the_work_of_a_thread_that_does_not_get_to_run(self, make_ingest):
        ingest = make_ingest("thread", interval=60)
        ingest.recorder.observe(make_outcome(hits=3))
        ingest._next_flush -= 90
        ingest._request_finished()
        assert stored_hits() == 0
        ingest._next_flush -= 90
        ingest._request_finished()
        assert stored_hits() == 3

    @pytest.mark.django_db(transaction=True)
    def test_a_request_does_not_wait_for_another_ones_flush(self, make_ingest):
        ingest = make_ingest("request", interval=60)
        ingest._next_flush -= 90
        ingest.recorder.observe(make_outcome(hits=3))
        with ingest._lock:
            ingest._request_finished()
        assert stored_hits() == 0


PROCESS = """
    import os, sys, threading, time
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="tests",
        USE_TZ=True,
        DATABASES={"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1],
        }},
        INSTALLED_APPS=["django_safecache"],
        SAFECACHE={"FLUSH": sys.argv[2], "FLUSH_INTERVAL": 0.05},
    )
    django.setup()
    from django.core.management import call_command
    from django_safecache.memcached.outcomes import Outcome, observers
    from django_safecache.models import CacheDigest, Writer

    def observe(hits):
        observers.observe(Outcome("default", "A", "get", (), hits=hits))

    def rows():
        return sorted(CacheDigest.objects.values_list("hits", flat=True))
"""


def run_process(path, mode, code, **environment):
    """Run `code` in a process of its own, where the app is configured as in a site."""
    source = textwrap.dedent(PROCESS) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", source, str(path), mode],
        env={**os.environ, "TMPDIR": str(path.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """The file of an empty database with the tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    run_process(path, "off", 'call_command("migrate", verbosity=0)')
    return path


@pytest.mark.xdist_group("ingest processes")
class TestProcesses:
    @pytest.fixture
    def database(self, migrated, tmp_path):
        return Path(shutil.copy(migrated, tmp_path))

    @pytest.mark.parametrize("mode", ["thread", "request"])
    def test_what_is_left_at_the_end_of_a_process_is_stored(self, database, mode):
        run_process(database, mode, "observe(3)")
        code = "print(*rows(), Writer.objects.filter(ended=None).count())"
        assert run_process(database, "off", code) == ["3", "0"]

    def test_what_the_sites_own_end_counts_is_stored(self, database):
        code = """
            import atexit
            atexit.register(observe, 20)
            observe(1)
        """
        run_process(database, "thread", code)
        assert run_process(database, "off", "print(*rows())") == ["21"]

    def test_a_site_whose_mails_stay_in_memory_is_no_test_run(self, database):
        code = """
            from django.core import mail
            mail.outbox = []
            observe(3)
        """
        run_process(database, "thread", code)
        assert run_process(database, "off", "print(*rows())") == ["3"]

    def test_no_thread_runs_before_the_first_outcome(self, database):
        code = """
            print(threading.active_count())
            observe(1)
            print(threading.active_count())
        """
        assert run_process(database, "thread", code) == ["1", "2"]

    def test_a_forked_child_stores_its_own_counts_and_leaves_the_parents(
        self, database
    ):
        code = """
            observe(1)
            pid = os.fork()
            if pid == 0:
                observe(20)
                deadline = time.monotonic() + 20
                while 20 not in rows() and time.monotonic() < deadline:
                    time.sleep(0.02)
                os._exit(0)
            os.waitpid(pid, 0)
            observe(300)
        """
        # A fork of a process with threads is what is tested here.
        run_process(database, "thread", code, PYTHONWARNINGS="ignore")
        assert run_process(database, "off", "print(*rows())") == ["20", "301"]

    def test_a_child_of_multiprocessing_stores_what_is_left(self, database):
        """It ends by ``os._exit``, without atexit."""
        code = """
            import multiprocessing
            fork = multiprocessing.get_context("fork")
            children = [fork.Process(target=observe, args=[n]) for n in (20, 300)]
            [child.start() for child in children]
            [child.join() for child in children]
        """
        run_process(database, "request", code, PYTHONWARNINGS="ignore")
        assert run_process(database, "off", "print(*rows())") == ["20", "300"]

    @pytest.mark.parametrize("mode", ["thread", "request"])
    def test_a_test_run_does_not_count_into_the_sites_own_database(
        self, database, mode
    ):
        """As the test runner does it: another database, then the old one back."""
        code = """
            from django.core.signals import request_finished
            from django.test import utils
            utils.setup_test_environment()
            observe(5)
            time.sleep(0.2)
            request_finished.send(None)
            utils.teardown_test_environment()
        """
        run_process(database, mode, code)
        assert run_process(
            database, "off", "print(*rows(), Writer.objects.count())"
        ) == ["0"]

    def test_without_tables_a_process_lives_and_ends_quietly(self, tmp_path):
        code = """
            observe(1)
            time.sleep(0.2)
            from django.apps import apps
            ingest = apps.get_app_config("django_safecache").ingest
            print(ingest.trouble.errors.count > 0)
        """
        assert run_process(tmp_path / "db.sqlite3", "thread", code) == ["True"]

    def test_a_process_that_counted_nothing_does_not_look_for_tables(self, tmp_path):
        """``manage.py migrate`` itself, on a new site, has nothing to complain of."""
        code = """
            from django.apps import apps
            ingest = apps.get_app_config("django_safecache").ingest
            print(ingest.flush(), ingest.trouble.errors.count)
        """
        assert run_process(tmp_path / "db.sqlite3", "thread", code) == ["True", "0"]

    def test_without_a_database_a_process_lives_and_ends_quietly(self, tmp_path):
        code = """
            from django.apps import apps
            apps.get_app_config("django_safecache").ingest.database = "nowhere"
            observe(1)
            time.sleep(0.2)
            print("alive")
        """
        assert run_process(tmp_path / "db.sqlite3", "thread", code) == ["alive"]

    def test_loading_the_app_again_does_not_count_twice(self, database):
        code = """
            from django.test.utils import override_settings
            with override_settings(INSTALLED_APPS=["django_safecache"]):
                pass
            observe(3)
        """
        run_process(database, "thread", code)
        assert run_process(database, "off", "print(*rows())") == ["3"]

    def test_a_logged_exception_is_stored_with_its_account_hidden(self, database):
        code = """
            import logging
            from structlog.contextvars import bind_contextvars
            from django_safecache.recording.log_handler import DigestHandler

            logging.getLogger("shop").addHandler(DigestHandler())
            bind_contextvars(account="acme")
            try:
                {}["room"]
            except KeyError:
                logging.getLogger("shop").exception("failed")
        """
        run_process(database, "thread", code)
        code = """
            from django_safecache.models import Problem
            problem = Problem.objects.get()
            account = problem.facets.get(facet="account").value
            print(problem.kind, problem.exception, len(account), "acme" in account)
        """
        told = run_process(database, "off", code)
        assert told == ["application", "builtins.KeyError", "32", "False"]

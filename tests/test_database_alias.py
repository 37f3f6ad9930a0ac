"""``SAFECACHE["DATABASE"]`` names another database, where a router puts the tables."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from functools import partial

import pytest

PROCESS = """
    import sys
    import django
    from django.conf import settings

    class Router:
        def db_for_read(self, model, **hints):
            return "counts" if model._meta.app_label == "django_safecache" else None

        db_for_write = db_for_read

        def allow_migrate(self, db, app_label, **hints):
            return (app_label == "django_safecache") == (db == "counts")

    engine = "django.db.backends.sqlite3"
    settings.configure(
        SECRET_KEY="tests",
        USE_TZ=True,
        TIME_ZONE="UTC",
        DATABASES={
            "default": {"ENGINE": engine, "NAME": "default.sqlite3"},
            "counts": {"ENGINE": engine, "NAME": "counts.sqlite3"},
        },
        DATABASE_ROUTERS=[Router()],
        INSTALLED_APPS=[
            "django.contrib.contenttypes", "django.contrib.auth", "django_safecache",
        ],
        SAFECACHE={
            "DATABASE": "counts",
            "DIGEST": {"RECIPIENTS": ["ops@example.com"], "SEND_EMPTY": "always"},
        },
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
        }],
        EMAIL_BACKEND="django.core.mail.backends.console.EmailBackend",
    )
    django.setup()
    from django.core.management import call_command
    from django_safecache.memcached.outcomes import Outcome, observers
"""
COUNT = 'observers.observe(Outcome("default", "A", "get", (), hits=3))'
PREVIEW = 'call_command("safecache_digest", preview=True)'


def run_in(folder, code):
    """Run `code` in a process of the site's own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROCESS) + code],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "flush_failed" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A folder with both databases, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    run_in(folder, 'call_command("migrate", verbosity=0)')
    run_in(folder, 'call_command("migrate", database="counts", verbosity=0)')
    return folder


@pytest.fixture
def run(migrated, tmp_path):
    for file in migrated.glob("*.sqlite3"):
        shutil.copy(file, tmp_path)
    return partial(run_in, tmp_path)


def tables(file):
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {name for (name,) in rows if name.startswith("django_safecache")}


@pytest.mark.xdist_group("another database")
class TestAnotherDatabase:
    def test_the_tables_are_there_and_nowhere_else(self, run, tmp_path):
        assert tables(tmp_path / "default.sqlite3") == set()
        assert "django_safecache_cachedigest" in tables(tmp_path / "counts.sqlite3")

    def test_what_a_process_counts_is_stored_there(self, run, tmp_path):
        run(COUNT)
        with closing(sqlite3.connect(tmp_path / "counts.sqlite3")) as connection:
            rows = connection.execute("SELECT hits FROM django_safecache_cachedigest")
            assert rows.fetchall() == [(3,)]

    def test_the_digest_is_made_of_what_is_there(self, run, tmp_path):
        before = run(PREVIEW)
        run(COUNT)
        with closing(sqlite3.connect(tmp_path / "counts.sqlite3")) as connection:
            for table, column in (
                ("cachedigest", "bucket"),
                ("writer", "started"),
                ("writer", "last_flush"),
            ):
                connection.execute(
                    f"UPDATE django_safecache_{table} "  # noqa: S608
                    f"SET {column} = datetime({column}, '-1 day')"
                )
            connection.commit()
        assert run(PREVIEW) != before

    def test_the_mail_of_yesterday_is_claimed_there(self, run, tmp_path):
        run('call_command("safecache_digest")')
        with closing(sqlite3.connect(tmp_path / "counts.sqlite3")) as connection:
            rows = connection.execute("SELECT status FROM django_safecache_digestmail")
            assert rows.fetchall()

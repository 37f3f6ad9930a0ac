"""``SAFECACHE["DATABASE"]`` names another database, whatever the site's router says."""

from __future__ import annotations

import os
import re
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

    class KnowsTheApp:
        # Puts the tables where the counts are stored, and only there.
        def db_for_read(self, model, **hints):
            return "counts" if model._meta.app_label == "django_safecache" else None

        db_for_write = db_for_read

        def allow_migrate(self, db, app_label, **hints):
            return (app_label == "django_safecache") == (db == "counts")

    class PrimaryReplica:
        # As in Django's documentation: it knows its own databases and nothing else.
        def db_for_read(self, model, **hints):
            return "default"

        db_for_write = db_for_read

        def allow_relation(self, obj1, obj2, **hints):
            known = {obj1._state.db, obj2._state.db} <= {"default"}
            return True if known else None

        def allow_migrate(self, db, app_label, **hints):
            return True

    engine = "django.db.backends.sqlite3"
    settings.configure(
        SECRET_KEY="tests",
        USE_TZ=True,
        TIME_ZONE="UTC",
        DATABASES={
            "default": {"ENGINE": engine, "NAME": "default.sqlite3"},
            "counts": {"ENGINE": engine, "NAME": "counts.sqlite3"},
        },
        DATABASE_ROUTERS=[globals()[sys.argv[1]]()],
        INSTALLED_APPS=[
            "django.contrib.admin", "django.contrib.auth",
            "django.contrib.contenttypes", "django.contrib.messages",
            "django.contrib.sessions", "django_safecache",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        ROOT_URLCONF="__main__",
        STATIC_URL="/static/",
        ALLOWED_HOSTS=["*"],
        SAFECACHE={
            "DATABASE": "counts",
            "DIGEST": {"RECIPIENTS": ["ops@example.com"], "SEND_EMPTY": "always"},
        },
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]},
        }],
        EMAIL_BACKEND="django.core.mail.backends.console.EmailBackend",
    )
    django.setup()
    from django.contrib import admin
    from django.core.management import call_command
    from django.urls import path
    from django_safecache.apps import SafeCacheConfig
    from django_safecache.memcached.outcomes import Outcome, observers

    urlpatterns = [path("admin/", admin.site.urls)]
"""
COUNT = """
observers.observe(Outcome("default", "A", "get", (), hits=3))
"""
FAIL = """
import logging
from structlog.contextvars import bound_contextvars
from django_safecache.recording.log_handler import DigestHandler

site = logging.getLogger("site")
site.addHandler(DigestHandler())
with bound_contextvars(account="ana"):
    try:
        raise LookupError("no such room")
    except LookupError:
        site.exception("a view failed")
"""
PREVIEW = """
call_command("safecache_digest", preview=True)
"""
DIGEST = """
call_command("safecache_digest")
"""
ADMIN = """
from django.contrib.auth.models import User
from django.test import Client

client = Client()
client.force_login(User.objects.create_superuser("ana"))
index = "/admin/django_safecache"
def show(address):
    response = client.get(index + address)
    assert response.status_code == 200, address
    print(response.content.decode())
"""
KNOWS_THE_APP, PRIMARY_REPLICA = "KnowsTheApp", "PrimaryReplica"


def run_in(folder, router, code):
    """Run `code` in a process of the site's own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROCESS) + code, router],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "flush_failed" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[KNOWS_THE_APP, PRIMARY_REPLICA])
def migrated(request, tmp_path_factory):
    """A router, and a folder with both databases, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    run_in(folder, request.param, 'call_command("migrate", verbosity=0)')
    migrate = 'call_command("migrate", database="counts", verbosity=0)'
    run_in(folder, request.param, migrate)
    return request.param, folder


@pytest.fixture
def router(migrated):
    return migrated[0]


@pytest.fixture
def run(migrated, tmp_path):
    router, folder = migrated
    for file in folder.glob("*.sqlite3"):
        shutil.copy(file, tmp_path)
    yield partial(run_in, tmp_path, router)
    assert not any(rows(tmp_path / "default.sqlite3").values())


def rows(file):
    """Table of the package to its number of rows."""
    with closing(sqlite3.connect(file)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
            for (name,) in tables
            if name.startswith("django_safecache")
        }


def stored(folder, query):
    with closing(sqlite3.connect(folder / "counts.sqlite3")) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.xdist_group("another database")
class TestAnotherDatabase:
    def test_the_tables_are_there_and_nowhere_else_if_the_router_says_so(
        self, run, router, tmp_path
    ):
        assert "django_safecache_cachedigest" in rows(tmp_path / "counts.sqlite3")
        elsewhere = rows(tmp_path / "default.sqlite3").keys()
        assert bool(elsewhere) == (router == PRIMARY_REPLICA)

    def test_what_a_process_counts_is_stored_there(self, run, tmp_path):
        run(COUNT)
        query = "SELECT hits FROM django_safecache_cachedigest"
        assert stored(tmp_path, query) == [(3,)]

    def test_a_problem_is_stored_there_with_its_sample(self, run, tmp_path):
        run(COUNT + FAIL)
        assert stored(tmp_path, "SELECT hits FROM django_safecache_cachedigest") == [
            (3,)
        ]
        ((message, traceback),) = stored(
            tmp_path,
            "SELECT message, traceback FROM django_safecache_problemsample "
            "JOIN django_safecache_problem problem ON problem.id = problem_id",
        )
        assert message == "no such room"
        assert "LookupError" in traceback

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

    def test_the_mail_of_yesterday_is_claimed_and_sent_from_there(self, run, tmp_path):
        assert "To: ops@example.com" in run(DIGEST)
        query = (
            "SELECT status, recipient, error, delivery.sent_at IS NOT NULL "
            "FROM django_safecache_digestmail mail "
            "JOIN django_safecache_digestdelivery delivery ON mail.id = mail_id"
        )
        assert stored(tmp_path, query) == [("sent", "ops@example.com", "", 1)]

    def test_the_pages_of_the_admin_show_what_is_there(self, run):
        run(COUNT + FAIL)
        run(DIGEST)
        pages = run(
            f"""{ADMIN}
show("/dashboard/")
show("/problem/")
show("/problem/1/change/")
show("/digestmail/1/change/")
show("/digestmail/1/html/")
"""
        )
        dashboard, problems, problem, mail, html = pages.split("<!DOCTYPE html>")[1:]
        assert "no such room" in dashboard
        assert "no such room" in problems
        assert '<div class="readonly">1</div>' in problem  # account
        assert re.search(r"<pre [^>]*>[^<]*LookupError", problem)  # sample
        assert "ops@example.com: " in mail
        assert "NO TELEMETRY: no process reported" in mail
        assert "No process reported" in html

    def test_a_problem_is_resolved_there(self, run, tmp_path):
        run(FAIL)
        chosen = {"action": "resolve", "_selected_action": ["1"], "index": 0}
        run(f'{ADMIN}client.post(index + "/problem/", {chosen})')
        query = "SELECT state FROM django_safecache_problem"
        assert stored(tmp_path, query) == [("resolved",)]

    def test_what_is_too_old_is_deleted_there(self, run, tmp_path):
        run(COUNT + FAIL)
        with closing(sqlite3.connect(tmp_path / "counts.sqlite3")) as connection:
            connection.executescript(
                "UPDATE django_safecache_problem "
                "SET last_seen = datetime(last_seen, '-9 years');"
            )
        run('call_command("safecache_rollup")')
        for table in ("problem", "problemsample", "problemfacet"):
            assert not rows(tmp_path / "counts.sqlite3")[f"django_safecache_{table}"]

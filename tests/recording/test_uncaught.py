"""In processes of their own: the hooks are the interpreter's."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

PROCESS = """
import os, sys, threading
import django
from django.conf import settings
from django.core.management import call_command

HANDLER = "django_safecache.recording.log_handler.DigestHandler"
settings.configure(
    SECRET_KEY="tests",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db"}},
    INSTALLED_APPS=["django_safecache"],
    SAFECACHE={"FLUSH": "thread", "FLUSH_INTERVAL": 3600},
    LOGGING={
        "version": 1,
        "handlers": {"digest": {"class": os.environ["HANDLER"]}},
        "root": {"handlers": ["digest"]},
    },
)
django.setup()
call_command("migrate", verbosity=0)
"""
USED = "django_safecache.recording.log_handler.DigestHandler"


@pytest.fixture
def end(tmp_path):
    """How a process ends that runs some code, and the problems that are stored then."""

    def end(code, handler=USED):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS + textwrap.dedent(code)],
            env={**os.environ, "TMPDIR": str(tmp_path), "HANDLER": handler},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with closing(sqlite3.connect(tmp_path / "db")) as connection:
            found = connection.execute(
                "SELECT exception, message, count FROM django_safecache_problem p "
                "JOIN django_safecache_problemcount c ON c.problem_id = p.id"
            ).fetchall()
        return done, found

    return end


class TestUncaught:
    def test_what_ends_a_command_is_counted_and_told_as_ever(self, end):
        done, found = end("raise LookupError('no room 7')")
        assert found == [("builtins.LookupError", "no room <n>", 1)]
        assert done.returncode == 1
        assert done.stderr.endswith("LookupError: no room 7\n")

    def test_what_was_logged_before_is_counted_once(self, end):
        _, found = end(
            """
            import logging
            try:
                raise LookupError("no room 7")
            except LookupError:
                logging.exception("failed")
                raise
            """
        )
        assert found == [("builtins.LookupError", "no room <n>", 1)]

    def test_what_ends_a_thread_is_counted_and_told_as_ever(self, end):
        done, found = end(
            """
            thread = threading.Thread(target=lambda: {}["room"])
            thread.start()
            thread.join()
            """
        )
        assert found == [("builtins.KeyError", "<text>", 1)]
        assert done.returncode == 0
        assert "KeyError: 'room'" in done.stderr

    @pytest.mark.parametrize("end_by", ["SystemExit(3)", "KeyboardInterrupt"])
    def test_an_exit_and_an_interrupt_are_not(self, end, end_by):
        done, found = end(f"raise {end_by}")
        assert done.returncode != 0
        assert found == []

    def test_without_the_handler_nothing_is(self, end):
        done, found = end("raise LookupError", handler="logging.NullHandler")
        assert done.returncode == 1
        assert found == []

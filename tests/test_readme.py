"""The README's facts: an option or command that is not so fails here."""

from __future__ import annotations

import logging
import logging.config
import re
from dataclasses import fields
from itertools import chain
from pathlib import Path

import pytest
import structlog
from django.contrib.auth.models import User
from django.core.management import get_commands
from django.test import RequestFactory
from structlog.contextvars import get_contextvars

from django_safecache.conf import DEFAULTS
from django_safecache.memcached.options import OBSOLETE, RENAMED, Options
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import Recorder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def code(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def fail(request):
    """A view whose exceptions are logged in both ways."""
    for log in (logging.getLogger("shop").exception, structlog.get_logger().exception):
        try:
            raise ValueError("x")
        except ValueError:
            log("failed")


class TestReadme:
    def test_every_option_is_documented(self):
        names = {field.name for field in fields(Options)} | set(RENAMED)
        assert {name for name in names if f"`{name}`" not in README} == set()

    def test_the_option_table_gives_the_real_defaults(self):
        rows = re.findall(r"^\| `([a-z_]+)` \| ([\d.]+) \|", README, re.MULTILINE)
        defaults = Options()
        assert len(rows) == 9
        for name, value in rows:
            assert float(value) == getattr(defaults, name)

    def test_every_setting_is_documented(self):
        nested = (value for value in DEFAULTS.values() if isinstance(value, dict))
        names = {*DEFAULTS, *chain.from_iterable(nested)}
        assert {name for name in names if name not in README} == set()

    def test_no_obsolete_option_is_advertised(self):
        assert [name for name in OBSOLETE if f"`{name}`" in README] == []

    @pytest.mark.parametrize("environment", ["demo", "bench", "year"])
    def test_the_tox_environments_exist(self, environment):
        assert f"tox run -e {environment}" in README
        assert f"[testenv:{environment}]" in (ROOT / "tox.ini").read_text()

    def test_the_commands_exist(self):
        commands = set(re.findall(r"manage\.py (safecache_\w+)", README))
        assert commands
        assert commands <= set(get_commands())

    def test_its_modules_exist(self):
        for dotted in set(re.findall(r"django_safecache(?:\.\w+)+", README)):
            module = ROOT / Path(*dotted.split("."))
            parts = (module, module.parent)
            assert any(p.is_dir() or p.with_suffix(".py").is_file() for p in parts), (
                dotted
            )

    def test_ci_runs_the_readmes_test_command(self):
        commands = re.findall(r"^python3 -m venv .*tox run$", README, re.MULTILINE)
        assert len(commands) == 1

    def test_its_example_counts_exceptions_with_their_accounts(self, monkeypatch):
        recorder = Recorder(account=lambda: str(get_contextvars().get("account", "")))
        monkeypatch.setattr(DigestHandler, "recorder", recorder)
        (example,) = [block for block in code("python") if "count_exceptions" in block]
        handlers = logging.getLogger().handlers[:]
        given = {}
        try:
            exec(example, given)  # noqa: S102 - the README's own
            logging.config.dictConfig(given["LOGGING"])
            request = RequestFactory().get("/")
            request.user = User(pk=17)
            given["account_middleware"](fail)(request)
        finally:
            structlog.reset_defaults()
            logging.getLogger().handlers[:] = handlers
        snapshot = recorder.snapshot()
        assert [each.count for each in snapshot.occurrences] == [2]
        assert ("account", "17") in {(f.facet, f.value) for f in snapshot.facets}

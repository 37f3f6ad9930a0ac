"""The README's facts: an option or command that is not so fails here."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.management import get_commands

from django_safecache.conf import DEFAULTS
from django_safecache.memcached.options import OBSOLETE, RENAMED, Options

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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
        names = {*DEFAULTS, *DEFAULTS["DIGEST"], *DEFAULTS["RETENTION_DAYS"]}
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

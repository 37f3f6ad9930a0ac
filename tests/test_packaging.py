"""What a user gets is the wheel, not the source folder."""

from __future__ import annotations

import os
from importlib import metadata, resources
from pathlib import Path

import pytest

import django_safecache

ROOT = Path(__file__).parent.parent
PACKAGE = Path(django_safecache.__file__).parent


class TestWheel:
    @pytest.mark.skipif("TOX_ENV_DIR" not in os.environ, reason="not run by tox")
    def test_tox_tests_the_wheel(self):
        assert PACKAGE.is_relative_to(os.environ["TOX_ENV_DIR"])

    def test_every_file_of_the_package_is_in_it(self):
        """Templates, static files, py.typed: a flat layout hides what is missing."""
        source = {
            path.relative_to(ROOT / "django_safecache")
            for path in (ROOT / "django_safecache").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert {path for path in source if not (PACKAGE / path).is_file()} == set()
        assert Path("py.typed") in source
        assert any(path.suffix == ".html" for path in source)

    def test_the_licence_is_in_it(self):
        if PACKAGE.is_relative_to(ROOT / "django_safecache"):
            pytest.skip("not installed")
        files = [str(path) for path in metadata.files("django-safecache") or []]
        assert any(path.endswith("licenses/LICENSE") for path in files)

    def test_py_typed_is_readable_as_a_resource(self):
        assert resources.files("django_safecache").joinpath("py.typed").is_file()

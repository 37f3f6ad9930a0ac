"""Where the real memcached is, for the tests that need it."""

from __future__ import annotations

import os
import shutil

import pytest


def memcached_or_skip() -> str:
    """Its path. Without one the test is skipped, and in CI failed."""
    program = shutil.which("memcached")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have memcached on PATH")
        pytest.skip("memcached is not on PATH")
    return program

"""Where Chromium is, for the tests that need it, and how it is asked for a page."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
]


def chromium_or_skip() -> str:
    """Its path. Without one the test is skipped, and in CI failed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium on PATH")
        pytest.skip("chromium is not on PATH")
    return program


def visit(program: str, url: str, profile: str) -> tuple[str, list[str]]:
    """The document at `url` once its scripts have rested, and what the console said."""
    done = subprocess.run(
        [
            program,
            *_OPTIONS,
            f"--user-data-dir={profile}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console

"""For fixtures that run something for a minute, and tests of what came out."""

from __future__ import annotations

import pytest


def one_run_each(*names, of=""):
    """Parameters of a fixture: `--dist=loadgroup` gives all tests of one to one worker,
    and so runs each once, and different ones at the same time."""
    return [
        pytest.param(name, marks=pytest.mark.xdist_group(f"{of} {name}"))
        for name in names
    ]

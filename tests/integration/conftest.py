"""The modules of this folder import each other as scripts do, by their names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

# A minute for each web server or database: not with the other tests. They are collected
# where they are named on the command line, as tox does.
collect_ignore = [
    "test_ends.py",
    "test_exactness.py",
    "test_faults.py",
    "test_trouble.py",
]

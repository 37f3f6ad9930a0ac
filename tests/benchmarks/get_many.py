"""The 421 Campfire keys by one `get_many`: the first row of `run.py`, by itself.

python tests/benchmarks/get_many.py [--rounds N] [--json FILE]
"""

from __future__ import annotations

import sys

from run import main

if __name__ == "__main__":
    main(["--only", "get_many", *sys.argv[1:]])

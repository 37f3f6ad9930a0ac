"""The modules of this folder import each other as scripts do, by their names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

# A minute for each web server: not with the other tests. It is collected where it is
# named on the command line, as `tox run -e integration` does.
collect_ignore = ["test_faults.py"]

"""Feed the reply parsers whatever libFuzzer finds out about them.

    python tests/fuzz/fuzz_protocol.py -max_total_time=30 -rss_limit_mb=1024 FOLDER

New inputs are kept in FOLDER, or in a temporary one; the corpus beside this file is
read and never written. Needs atheris, which is not a dependency of the tests.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["django_safecache"]):
    from protocol_properties import check_input

CORPUS = Path(__file__).parent / "corpus"
MAX_LENGTH = 8192
"""Of an input: enough for lines that are too long, and still fast."""


def main() -> None:
    options = [arg for arg in sys.argv[1:] if arg.startswith("-")]
    folders = [arg for arg in sys.argv[1:] if not arg.startswith("-")]
    if not any(option.startswith("-max_len=") for option in options):
        options.append(f"-max_len={MAX_LENGTH}")
    if all(Path(each).is_file() for each in folders):
        # With files libFuzzer only runs those: to reproduce what it found.
        folders = folders or [tempfile.mkdtemp(), str(CORPUS)]
    else:
        Path(folders[0]).mkdir(parents=True, exist_ok=True)
        folders.append(str(CORPUS))
    atheris.Setup([sys.argv[0], *options, *folders], check_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

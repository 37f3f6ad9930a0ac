"""What was edited and when, in a file: written by one process, followed by others.

Moments are ``time.monotonic()``, which all processes of a Linux machine share.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

_REVISION = re.compile(r"revision (\d+) of (\d+)\b")


@dataclass(frozen=True)
class Edit:
    """A message that was changed, in the database and then in the cache."""

    message: int
    revision: int
    operation: str
    """What the cache was told: set, or delete."""
    began: float
    acknowledged: float
    """When the cache call had returned, long after the commit."""
    answered: bool
    """Whether the server said that it did as told."""
    checked: int = 0
    """How many keys the writer itself read back after it."""
    own_stale: list[tuple[int, int]] = field(default_factory=list)
    """Of those, messages and the older revisions that the cache gave."""


def revised(text: str, message: int, revision: int) -> str:
    """`text` as it is after so many edits of `message`."""
    return f"revision {revision} of {message}. {text}"


def shown(fragment: str) -> tuple[int, int | None]:
    """The revision of a fragment, and whose it is: 0 and None if it was not edited."""
    found = _REVISION.search(fragment)
    return (int(found[1]), int(found[2])) if found else (0, None)


class Pen:
    """Appends to the journal, a line at once."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, edit: Edit) -> None:
        os.write(self._fd, json.dumps(asdict(edit)).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


class Follower:
    """Reads what was appended since it was asked last."""

    def __init__(self, file: Path) -> None:
        self._stream = file.open("rb")
        self._rest = b""

    def new(self) -> Iterator[Edit]:
        *lines, self._rest = (self._rest + self._stream.read()).split(b"\n")
        return (Edit(**json.loads(line)) for line in lines)

    def close(self) -> None:
        self._stream.close()


def read(file: Path) -> list[Edit]:
    follower = Follower(file)
    try:
        return list(follower.new())
    finally:
        follower.close()

"""Totals of processes that ended while they could not be stored, in files.

The next process of the site on this host stores them. They are absolute, so that it
does no harm when two of them do.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from django_safecache.events import get_logger
from django_safecache.recording.snapshots import FlushErrors, Snapshot

# An outage of hours with workers that are replaced every minute; 10 kB each, as a rule.
MAX_FILES = 1000
# What could not be stored for so long is not going to be: nothing older is stored, as
# that it was counted already may be forgotten by then.
MAX_AGE = 7 * 86_400.0
# Longer than it takes to write a file: who was at it has been killed.
MAX_WRITING = 3600.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a process would have stored last, and the trouble it had with that."""

    snapshot: Snapshot
    errors: FlushErrors


class Leftovers:
    """The files of one site in `folder`, which is made when it is needed.

    `site` is part of their names. Only a folder is used that belongs to this user and
    that nobody else can write to or read: it is one in which others may have their own.
    """

    def __init__(self, folder: Path, site: str) -> None:
        self._folder = folder
        self._site = site

    def keep(self, leftover: Leftover) -> None:
        """Raises OSError if there is no place for it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_ours():
            raise PermissionError(f"{self._folder} is not this user's alone")
        if len(self._files()) >= MAX_FILES:
            raise OSError(f"{self._folder} has {MAX_FILES} files of the site already")
        file = self._last()
        hidden = file.with_suffix(".part")
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(fd, "w") as stream:
                json.dump(asdict(leftover), stream, default=datetime.isoformat)
            hidden.replace(file.with_suffix(".json"))
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise

    def each(self) -> Iterator[tuple[Path, Leftover]]:
        """Every one that is left, oldest first; it stays until its file is deleted.

        None while another process is at it: after an outage all of them come at once.
        What cannot be read, as it is of another version of the package, is deleted, and
        so is what is older than `MAX_AGE`; both are logged.
        """
        if not (self._is_ours() and any(self._folder.glob(f"{self._site}-*"))):
            return
        with open(self._folder / f"{self._site}.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            yield from self._each()

    def postpone(self, file: Path) -> None:
        """Let all others come before `file` the next time."""
        with suppress(OSError):
            file.rename(self._last().with_suffix(".json"))

    def refuse(self, file: Path) -> None:
        """Put `file` aside, for who wants to know why it could not be stored."""
        with suppress(OSError):
            file.rename(file.with_suffix(".refused"))

    def _each(self) -> Iterator[tuple[Path, Leftover]]:
        self._delete_older_than(MAX_WRITING, "part")
        self._delete_older_than(MAX_AGE, "refused")
        for file in self._files():
            try:
                age = time.time() - file.stat().st_mtime
                leftover = _revived(Leftover, json.loads(file.read_text()))
            except OSError:  # another process has stored it, or it is not to be read
                continue
            except _UNREADABLE:
                _give_up(file, "the file cannot be read")
                continue
            if age > MAX_AGE:
                _give_up(file, "the file is too old")
            else:
                yield file, leftover

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._site}-*.json"), key=_written)

    def _last(self) -> Path:
        """A name, without its end, that comes behind all others."""
        return self._folder / f"{self._site}-{os.getpid()}-{time.time_ns()}"

    def _delete_older_than(self, age: float, ending: str) -> None:
        for file in self._folder.glob(f"{self._site}-*.{ending}"):
            with suppress(OSError):
                if file.stat().st_mtime < time.time() - age:
                    file.unlink()

    def _is_ours(self) -> bool:
        with suppress(OSError):
            found = os.lstat(self._folder)
            private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
            return private and found.st_uid == os.geteuid()
        return False


# What is raised by JSON that is none, or too deep, or not of a `Leftover`.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def _give_up(file: Path, reason: str) -> None:
    with suppress(OSError):
        file.unlink()
        get_logger().error("counts_lost", file=str(file), reason=reason)


def _written(file: Path) -> tuple[int, str]:
    """As the name says, in which the process comes before the time."""
    moment = file.stem.rpartition("-")[2]
    return int(moment) if moment.isdecimal() else 0, file.name


def _revived(kind: Any, value: Any) -> Any:
    """What `dataclasses.asdict` and JSON have made of an object of the type `kind`."""
    if isinstance(kind, type) and is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _revived(types[name], its) for name, its in value.items()})
    if get_origin(kind) is tuple:
        return tuple(_revived(get_args(kind)[0], each) for each in value)
    if value is not None and (kind is datetime or datetime in get_args(kind)):
        return datetime.fromisoformat(value)
    return value

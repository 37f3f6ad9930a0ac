"""An error that a browser reports becomes an occurrence of a problem.

Everything in a report is a stranger's word: it is bounded, made printable and scrubbed,
and so are the numbers of problems, of places and of steps that strangers can make.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from django_safecache.recording.fingerprints import (
    MESSAGE_LENGTH,
    Cause,
    clean,
    scrubbed,
)
from django_safecache.recording.first_of_day import FirstOfDay
from django_safecache.recording.occurrences import OTHER, other_of
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.sightings import Sighting

KIND = "browser"
PAGE = "<page>"
"""Stands for a script within a page, whose path may be anybody's: a link that resets a
password has its token there."""
MAX_CAUSES = 200
MAX_PLACES = 500
"""In a day a process makes at most `MAX_CAUSES` problems of what browsers report, and
sees them at `MAX_PLACES`: of each problem, so many are stored for a day."""
MAX_FRAMES = 30
MAX_PARTS = 8
# As much as the script sends.
_STACK_LENGTH = 1500
_FRAME_LENGTH = 400
_PLACE_LENGTH = 120

_NAME = re.compile(r"[A-Za-z_$][\w$.]{0,80}")
_FUNCTION = re.compile(r"[\w$.<>/*#\[\] ]{1,80}")
_SCRIPT = re.compile(r"\.(?:[cm]?[jt]sx?|vue|svelte|wasm)$", re.IGNORECASE)
# ``at render (https://shop.example/app.js:3:7)``, ``at https://shop.example/app.js:3:7``
_CHROMIUM = re.compile(r"\s*at (?:async )?(?:(.+?) \()?([^\s()]+?)(?::\d+){0,2}\)?\s*")
# ``render@https://shop.example/app.js:3:7``
_OTHERS = re.compile(r"\s*([^@]*)@(\S+?)(?::\d+){0,2}\s*")


@dataclass(frozen=True, slots=True)
class BrowserError:
    """`name` is the error's class, `message` not yet scrubbed; `call_site` and `stack`
    are ``path:function``, innermost first, and may be shown."""

    name: str
    message: str
    call_site: str
    stack: tuple[str, ...]

    def sample(self) -> str:
        """The error as it may be stored, a line for each frame."""
        head = f"{self.name}: {scrubbed(self.message)}"
        return "\n".join([head, *[f"  {frame}" for frame in self.stack]])


def parse(body: bytes) -> BrowserError:
    """The error that the script of this package reports as JSON.

    Raises ValueError for anything else, of any depth and in any encoding.
    """
    try:
        report = json.loads(body.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(report, dict):
        raise ValueError("expected an object")
    name, message, source, stack = (
        report.get(field, "") for field in ("name", "message", "source", "stack")
    )
    for value in (name, message, source, stack):
        if not isinstance(value, str):
            raise ValueError("expected strings")
    if not (name or message):
        raise ValueError("expected a name or a message")
    frames = _frames(stack)
    return BrowserError(
        name=name if _NAME.fullmatch(name) and name.isascii() else "Error",
        message=message[:MESSAGE_LENGTH],
        call_site=frames[0] if frames else _path(source),
        stack=frames,
    )


class BrowserErrors:
    """Counts browser errors into a recorder. Thread-safe.

    After `MAX_CAUSES` different causes further ones are one problem, ``<other>``, until
    a day has passed, and so are places after `MAX_PLACES`: whoever makes up messages
    and scripts fills neither tables nor the room that others need.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._causes = FirstOfDay[str](MAX_CAUSES)
        self._places = FirstOfDay[tuple[str, str]](MAX_PLACES)

    def count(self, recorder: Recorder, error: BrowserError) -> None:
        """Count `error`, on the account of the request that reports it."""
        cause = recorder.causes.of(KIND, error.name, None, error.message)
        cause, place = self._bounded(cause, error.call_site)
        recorder.occurred(
            cause,
            lambda: Sighting(place, error.sample),
            # Of each: on how many accounts is what is asked first.
            account=recorder.account(),
        )

    def _bounded(self, cause: Cause, place: str) -> tuple[Cause, str]:
        with self._lock:
            now = self._clock()
            if not self._causes.has_room(cause.fingerprint, now):
                cause = other_of(KIND)
            if not self._places.has_room((cause.fingerprint, place), now):
                place = OTHER
            return cause, place


def _frames(stack: str) -> tuple[str, ...]:
    frames = []
    for line in stack[:_STACK_LENGTH].split("\n", MAX_FRAMES)[:MAX_FRAMES]:
        line = line[:_FRAME_LENGTH]
        match = _CHROMIUM.fullmatch(line) or _OTHERS.fullmatch(line)
        if match:
            function = (match[1] or "").strip()
            place = _path(match[2])
            known = _FUNCTION.fullmatch(function) and function.isascii()
            frames.append(f"{place}:{clean(function)}" if known else place)
    return tuple(frames)


def _path(source: str) -> str:
    """The path of a script, scrubbed; of everything else that it is in a page."""
    try:
        path = urlsplit(source[:_FRAME_LENGTH]).path
    except ValueError:  # ``http://[``
        return PAGE
    if not _SCRIPT.search(path):
        return PAGE
    # By its parts, for a whole path may look like a random word.
    parts = [scrubbed(unquote(part)) for part in path.split("/")[-MAX_PARTS:]]
    return clean("/".join(parts))[-_PLACE_LENGTH:]

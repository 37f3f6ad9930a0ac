"""Where in the site's own code something was called from."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import FrameType, TracebackType

# Never the place a reader looks for, wherever they are installed.
_MACHINERY = frozenset(
    {"django_safecache", "django", "asgiref", "pymemcache", "structlog", "logging"}
)
_STANDARD_LIBRARY = tuple(
    {path for name in ("stdlib", "platstdlib") if (path := sysconfig.get_path(name))}
)
# Deeper stacks exist, but then the first frames say as much as any.
_MAX_DEPTH = 200


def of_frame(frame: FrameType | None) -> str:
    """``module:function`` of the innermost frame of the site's own code.

    An installed package stands in when there is none, for a site that is deployed
    as one; empty when there is no such frame either. Without a line number, which
    would change with every release.
    """
    return _first_own(_outwards(frame))


def of_traceback(traceback: TracebackType | None) -> str:
    """The same of the frames that an exception passed through."""
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return _first_own(reversed(frames[-_MAX_DEPTH:]))


def is_own(frame: FrameType) -> bool:
    """Whether the code of `frame` is the site's own, neither machinery nor library."""
    module = frame.f_globals.get("__name__") or ""
    if module.partition(".")[0] in _MACHINERY:
        return False
    return _origin(frame.f_code.co_filename) == "site"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    for _ in range(_MAX_DEPTH):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _first_own(frames: Iterable[FrameType]) -> str:
    stand_in = ""
    for frame in frames:
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] in _MACHINERY:
            continue
        origin = _origin(frame.f_code.co_filename)
        if origin == "site":
            return _name(module, frame)
        if origin == "installed" and not stand_in:
            stand_in = _name(module, frame)
    return stand_in


def _name(module: str, frame: FrameType) -> str:
    code = frame.f_code
    return f"{module}:{getattr(code, 'co_qualname', code.co_name)}"


@lru_cache(maxsize=4096)
def _origin(filename: str) -> str:
    if "site-packages" in filename or "dist-packages" in filename:
        return "installed"
    if filename.startswith(("<", *_STANDARD_LIBRARY)):
        return "library"
    return "site"

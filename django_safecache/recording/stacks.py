"""Where an exception came from or a call was made, as text that gives nothing away.

Frames are told as ``path:line in function``, the path as it is imported: without the
directory that the code is installed in, which may be somebody's home. No line of
source, no local variable, no value; messages are scrubbed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType, TracebackType

from django_safecache.recording import call_sites
from django_safecache.recording.fingerprints import cause_of, clean
from django_safecache.recording.messages import class_name, told

MAX_LENGTH = 8000
"""Characters of one text; what is longer loses its middle frames, then its end."""
# The outermost frames say what asked, the innermost what failed.
_OUTERMOST, _INNERMOST = 8, 24
_MAX_CHAIN = 8
_MAX_DEPTH = 2000
_LINE_LENGTH = 200

_CAUSE, _CONTEXT, _SUPPRESSED, _TRACEBACK = (
    vars(BaseException)[name].__get__
    for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
)

Place = tuple[FrameType, int | None]
"""A frame, and the line it is at."""


def of_call(frame: FrameType | None) -> str:
    """The calls that led to `frame`, outermost first; empty if none is the site's."""
    places: list[Place] = []
    while frame is not None and len(places) < _MAX_DEPTH:
        places.append((frame, frame.f_lineno))
        frame = frame.f_back
    if not any(call_sites.is_own(frame) for frame, _ in places):
        return ""
    return _joined(_told(places[::-1]))


def of_exception(error: BaseException, traceback: TracebackType | None) -> str:
    """The exceptions that led to `error`, the first of them first, each with the
    frames it passed through, outermost first. `traceback` is that of `error`."""
    chain: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    following: BaseException | None = error
    link = ""
    while following is not None and id(following) not in seen:
        if len(chain) >= _MAX_CHAIN:
            break
        seen.add(id(following))
        chain.append((following, link))
        following, link = _reason(following)
    lines: list[str] = []
    for each, led_to in reversed(chain):
        passed = _passed(traceback if each is error else _TRACEBACK(each))
        lines += [*_told(list(passed)), _line(described(each))]
        lines += [f"-- {led_to} --"] if led_to else []
    return _joined(lines)


def described(error: BaseException) -> str:
    """The class and the scrubbed message of `error`."""
    name = class_name(error)
    message = cause_of("", name, None, told(error)).message
    return f"{name}: {message}" if message else name


def _reason(error: BaseException) -> tuple[BaseException | None, str]:
    """The exception before `error`, and how it led to it, as Python tells it."""
    # Not by the attributes of its class, which is the site's and may do anything.
    if (cause := _CAUSE(error)) is not None:
        return cause, "was the cause of"
    if _SUPPRESSED(error):
        return None, ""
    return _CONTEXT(error), "while it was handled"


def _passed(traceback: TracebackType | None) -> Iterator[Place]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _told(places: Sequence[Place]) -> list[str]:
    """A line for each frame of the site's own, and the last one; others are counted."""
    lines: list[str] = []
    last = len(places) - 1
    shown = (
        call_sites.is_own(frame) or n == last for n, (frame, _) in enumerate(places)
    )
    for own, run in itertools.groupby(zip(shown, places, strict=True), lambda x: x[0]):
        frames = [place for _, place in run]
        if own:
            lines += [_line(f"  {_where(*place)}") for place in frames]
        else:
            lines.append(f"  ... {len(frames)} of {_packages(f for f, _ in frames)}")
    left_out = len(lines) - _OUTERMOST - _INNERMOST
    if left_out > 0:
        lines[_OUTERMOST:-_INNERMOST] = [f"  ... {left_out} lines"]
    return lines


def _where(frame: FrameType, line: int | None) -> str:
    code = frame.f_code
    function = getattr(code, "co_qualname", code.co_name)
    path = _imported_path(str(frame.f_globals.get("__name__") or ""), code.co_filename)
    return f"{path}:{line} in {function}"


def _imported_path(module: str, filename: str) -> str:
    """``shop/views.py`` of the module ``shop.views``, wherever that is."""
    parts = filename.replace("\\", "/").split("/")
    names = module.split(".")
    stem = parts[-1].partition(".")[0]
    if stem == "__init__":
        names = [*names, stem]
    if stem != names[-1]:
        return parts[-1]  # __main__, or not a file at all
    return "/".join([*names[:-1], parts[-1]])


def _packages(frames: Iterable[FrameType]) -> str:
    names = {
        str(frame.f_globals.get("__name__") or "?").partition(".")[0]
        for frame in frames
    }
    return ", ".join(sorted(names)[:6])


def _line(text: str) -> str:
    indent = text[: len(text) - len(text.lstrip())]
    return (indent + clean(text))[:_LINE_LENGTH]


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)[:MAX_LENGTH]

"""A processor for structlog that counts the exceptions a site logs."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Any

from structlog.typing import EventDict

from django_safecache.recording.exception_counting import count, is_counted
from django_safecache.recording.log_handler import DigestHandler

_LEVELS = frozenset(["error", "exception", "critical", "fatal"])
_OWN = "django_safecache"


def count_exceptions(logger: Any, method_name: str, event_dict: EventDict) -> EventDict:
    """Count the exception of an event of level error or above; return the event as is.

    To be placed before the processors that turn ``exc_info`` into text. For loggers of
    structlog's own and those that wrap `logging`, also in the ``foreign_pre_chain`` of
    a formatter. Counts nothing until the app is ready. Never raises. What
    `DigestHandler` sees too is counted once.
    """
    recorder = DigestHandler.recorder
    if recorder is None or method_name not in _LEVELS:
        return event_dict
    exception, traceback = _exception(event_dict.get("exc_info"))
    if exception is not None and _is_counted(logger, event_dict):
        count(recorder, exception, traceback)
    return event_dict


def _exception(
    exc_info: object,
) -> tuple[BaseException | None, TracebackType | None]:
    """What may be given as ``exc_info``: an exception, `sys.exc_info()`, or truth."""
    if isinstance(exc_info, BaseException):
        return exc_info, exc_info.__traceback__
    found = exc_info if isinstance(exc_info, tuple) else None
    if type(exc_info) in (bool, int) and exc_info == 1:
        found = sys.exc_info()
    if found is None or len(found) != 3 or not isinstance(found[1], BaseException):
        return None, None
    return found[1], found[2] if isinstance(found[2], TracebackType) else None


def _is_counted(logger: Any, event_dict: EventDict) -> bool:
    for source in (event_dict.get("_record"), logger):
        name = getattr(source, "name", None)
        if isinstance(name, str):
            return is_counted(name)
    # Loggers of structlog's own have no name. It is asked who called them.
    return not _is_called_from_here(sys._getframe())


def _is_called_from_here(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] != "structlog" and module != __name__:
            return bool(module.partition(".")[0] == _OWN)
        frame = frame.f_back
    return False

"""Exceptions that the site logs become occurrences of problems."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import ClassVar

from django_safecache.recording import sightings
from django_safecache.recording.fingerprints import Cause
from django_safecache.recording.recorder import Recorder

KIND = "application"
_OWN_LOGGER = "django_safecache"
_COUNTED = "_safecache_counted"


class DigestHandler(logging.Handler):
    """Counts every record of level ERROR or above that carries an exception.

    The ``class`` of a handler in Django's ``LOGGING``. Counts nothing until a recorder
    is connected, because Django configures logging before it loads the apps. Never
    raises. A record that reaches several handlers is counted once, and those of this
    package's own loggers are not counted at all.
    """

    recorder: ClassVar[Recorder | None] = None
    """Connected by `apps`; one for the process, whatever the number of handlers."""

    def __init__(self, level: int | str = logging.ERROR) -> None:
        super().__init__(level)
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        # Reading the account is the site's code, and may log an error itself.
        if getattr(self._inside, "emitting", False):
            return
        self._inside.emitting = True
        try:
            self._count(record)
        except Exception:  # an exception whose str() fails, say: logging goes on
            return
        finally:
            self._inside.emitting = False

    def _count(self, record: logging.LogRecord) -> None:
        recorder = self.recorder
        if recorder is None or not record.exc_info or record.levelno < logging.ERROR:
            return
        exception = record.exc_info[1]
        if exception is None or record.name.partition(".")[0] == _OWN_LOGGER:
            return
        if getattr(record, _COUNTED, False):
            return
        setattr(record, _COUNTED, True)
        recorder.occurred(
            cause_of_exception(recorder, exception),
            partial(sightings.of_exception, exception, record.exc_info[2]),
        )


def cause_of_exception(recorder: Recorder, exception: BaseException) -> Cause:
    """The cause that `exception` is an occurrence of."""
    kind = type(exception)
    errno = exception.errno if isinstance(exception, OSError) else None
    return recorder.cause(
        KIND, f"{kind.__module__}.{kind.__qualname__}", errno, str(exception)
    )

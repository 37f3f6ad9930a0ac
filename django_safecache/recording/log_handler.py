"""A handler for `logging` that counts the exceptions a site logs."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from django_safecache.recording.exception_counting import count, is_counted
from django_safecache.recording.recorder import Recorder


class DigestHandler(logging.Handler):
    """Counts every record of level ERROR or above that carries an exception.

    The ``class`` of a handler in Django's ``LOGGING``. Counts nothing until a recorder
    is connected, because Django configures logging before it loads the apps. Never
    raises. An exception is counted once, whatever the number of records, handlers and
    structlog events that carry it; see `exception_counting` for what is not counted.
    """

    recorder: ClassVar[Recorder | None] = None
    """Connected by `apps`; one for the process, whatever the number of handlers. The
    structlog processor counts with it as well."""
    is_used: ClassVar[bool] = False
    """Whether there is any handler: then what nobody catches, and logs, counts too."""

    def __init__(self, level: int | str = logging.ERROR) -> None:
        super().__init__(level)
        DigestHandler.is_used = True

    def handle(self, record: logging.LogRecord) -> Any:
        """As of any handler, without its lock.

        Counting is thread-safe, and calls the site's code (its account, the texts of
        its exceptions): whoever logs would wait for that, and for ever if it waits for
        a lock that they hold.
        """
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        recorder = self.recorder
        if recorder is None or record.levelno < logging.ERROR:
            return
        # Anybody's record: `exc_info` may be anything that somebody has put there.
        exc_info = record.exc_info
        if not isinstance(exc_info, tuple) or len(exc_info) != 3:
            return
        exception = exc_info[1]
        if isinstance(exception, BaseException) and is_counted(record.name):
            count(recorder, exception, exc_info[2])

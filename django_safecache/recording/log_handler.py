"""A handler for `logging` that counts the exceptions a site logs."""

from __future__ import annotations

import logging
import sys
from typing import Any, ClassVar

from django_safecache.recording.exception_counting import count, is_counted
from django_safecache.recording.recorder import Recorder


class DigestHandler(logging.Handler):
    """Counts every record of level ERROR or above that carries an exception.

    The ``class`` of a handler in Django's ``LOGGING``. Counts nothing until a recorder
    is connected, because Django configures logging before it loads the apps. Never
    raises. An exception is counted once, whatever the number of records, handlers and
    structlog events that carry it; see `exception_counting` for what is not counted.
    In a worker of Celery it stays where it was, and is one of the tasks' loggers too.
    """

    recorder: ClassVar[Recorder | None] = None
    """Connected by `apps`; one for the process, whatever the number of handlers. The
    structlog processor counts with it as well."""
    is_used: ClassVar[bool] = False
    """Whether there is any handler: then what nobody catches, and logs, counts too."""

    def __init__(self, level: int | str = logging.ERROR) -> None:
        super().__init__(level)
        DigestHandler.is_used = True
        # The module is not imported for its sake: whoever runs a worker has it before
        # logging is configured, for the first time or, by Celery, again.
        celery: Any = sys.modules.get("celery.signals")
        if celery is not None:
            _stay(celery)

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


# The loggers that Celery takes all handlers away from. It gives each another list: the
# one that it had says for good which they were.
_TAKEN_FROM = ("root", "celery", "celery.task")
_lists: dict[str, list[logging.Handler]] = {}


def _stay(celery: Any) -> None:
    """Have Celery, by its signals, give back what it is about to take away."""
    _remember()
    # Sent before. `setup_logging` is as well, but who listens to that is to do it all.
    celery.celeryd_init.connect(_remember)
    celery.after_setup_logger.connect(_give_back)
    celery.after_setup_task_logger.connect(_give_to_tasks)


def _remember(**kwargs: object) -> None:
    for name in _TAKEN_FROM:
        _lists[name] = logging.getLogger(name).handlers


def _give_back(**kwargs: object) -> None:
    for name in ("root", "celery"):
        _add(_lists[name], name)


def _give_to_tasks(**kwargs: object) -> None:
    """Their loggers hand nothing on any more to those that they got to before."""
    for handlers in _lists.values():
        _add(handlers, "celery.task")
    _remember()


def _add(handlers: list[logging.Handler], name: str) -> None:
    for handler in list(handlers):
        if isinstance(handler, DigestHandler):
            logging.getLogger(name).addHandler(handler)

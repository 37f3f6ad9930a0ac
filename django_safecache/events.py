"""The package's log: one structlog event per change of state, never per failure.

A site that has configured structlog gets the events through its own processors.
One that has not gets them through Python's `logging`, under the logger
``django_safecache``: structlog's default would print them on standard output,
into the middle of whatever a management command writes there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

NAME = "django_safecache"


class _Guarded:
    """A logger that never raises: its processors are the site's code, and events are
    logged in the middle of a cache call, or of its telemetry."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, level: str) -> Callable[..., None]:
        def log(event: str, **values: object) -> None:
            # Whatever a processor raises: there is nobody to tell it to.
            with suppress(Exception):
                getattr(self._logger, level)(event, **values)

        return log


def get_logger() -> Any:
    """The logger to use now; ask again each time, the site may configure later."""
    return _Guarded(_logger())


def _logger() -> Any:
    if structlog.is_configured():
        return structlog.get_logger(NAME)
    return structlog.wrap_logger(
        logging.getLogger(NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )

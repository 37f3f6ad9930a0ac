"""The package's log: one structlog event per change of state, never per failure.

A site that has configured structlog gets the events through its own processors.
One that has not gets them through Python's `logging`, under the logger
``django_safecache``: structlog's default would print them on standard output,
into the middle of whatever a management command writes there.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

NAME = "django_safecache"


def get_logger() -> Any:
    """The logger to use now; ask again each time, the site may configure later."""
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

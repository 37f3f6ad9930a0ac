"""What is to be called when a process ends, whoever ends it."""

from __future__ import annotations

import atexit
import multiprocessing.util
import sys
from collections.abc import Callable
from typing import Any


def at_process_end(function: Callable[..., None]) -> None:
    """Call `function` when this process ends in order, or a child that it forks.

    By the end of the interpreter, which is how gunicorn's and uWSGI's workers, commands
    and a reload of ``runserver`` end: after all that is asked for later.
    """
    atexit.register(function)


def at_worker_end(function: Callable[..., None]) -> None:
    """Call `function` when this process ends by ``os._exit``, as workers do.

    Those of `multiprocessing`, and of Celery's prefork pool, after a finalizer or a
    signal of their own. A forked child has to ask for it again. What `function` is
    called with differs, and it may be called more than once.
    """
    multiprocessing.util.Finalize(None, function, exitpriority=0)
    # Not imported for its sake: a process of Celery's has it.
    celery: Any = sys.modules.get("celery.signals")
    if celery is not None:
        celery.worker_process_shutdown.connect(function, weak=False)


def not_at_process_end(function: Callable[..., None]) -> None:
    """Forget what the interpreter was asked for; of the others each is asked once."""
    atexit.unregister(function)

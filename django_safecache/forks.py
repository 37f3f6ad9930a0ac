"""What a forked child has to do anew, whoever forked it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any


def in_forked_child(function: Callable[[], None]) -> None:
    """Call `function` in every child that this process forks from now on, at once.

    It may be called twice. uWSGI forks its workers without telling Python, unless it is
    given ``--py-call-osafterfork``: they would all be the process that they were forked
    from, with its connections, and count under its name.
    """
    os.register_at_fork(after_in_child=function)
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None:
        return
    try:
        # Imported later, by the site, it would replace the hook.
        from uwsgidecorators import postfork_chain
    except Exception:  # it is not installed, or there is no master process
        before = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if before is not None:
                before()
            function()

        uwsgi.post_fork_hook = hook
    else:
        postfork_chain.append(function)

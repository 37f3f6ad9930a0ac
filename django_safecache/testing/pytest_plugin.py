"""pytest's fixture `cache_outage`.

pytest loads this for every project where the package is installed: it imports nothing
of Django, and pytest-django need not be there. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from django_safecache import testing


@pytest.fixture
def cache_outage() -> Iterator[Callable[..., ExitStack]]:
    """Begin an outage, which ends with the test: ``cache_outage("timeout")``.

    Takes what `django_safecache.testing.outage` takes. What it returns ends the outage
    before that, by `close()` or as a context manager.
    """
    with ExitStack() as begun:

        def begin(
            kind: str, *, alias: str | None = "default", server: str | None = None
        ) -> ExitStack:
            one = begun.enter_context(ExitStack())
            one.enter_context(testing.outage(kind, alias=alias, server=server))
            return one

        yield begin

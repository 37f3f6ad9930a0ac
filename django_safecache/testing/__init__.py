"""What users need to test a project that uses django_safecache."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_safecache.testing.faults import Faults
    from django_safecache.testing.outages import outage
    from django_safecache.testing.server import LocalMemcached
else:
    # When asked for: pytest loads the plugin in here for every project there is, and
    # LocalMemcached works without Django, which `outage` is about.
    _MODULES = {"Faults": "faults", "LocalMemcached": "server", "outage": "outages"}

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["Faults", "LocalMemcached", "outage"]

"""What users need to test a project that uses django_safecache."""

from __future__ import annotations

from django_safecache.testing.faults import Faults
from django_safecache.testing.server import LocalMemcached

__all__ = ["Faults", "LocalMemcached"]

"""Writes a recorder's totals into the tables, and deletes what is past retention."""

from __future__ import annotations

from django_safecache.storage.problems import unmute_what_exceeds
from django_safecache.storage.totals import prune, store, store_trouble

__all__ = ["prune", "store", "store_trouble", "unmute_what_exceeds"]

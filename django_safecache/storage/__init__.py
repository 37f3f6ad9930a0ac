"""Writes: a recorder's totals into the tables, those together, and nothing for ever."""

from __future__ import annotations

from django_safecache.storage.clocks import now_at_most
from django_safecache.storage.problems import unmute_what_exceeds
from django_safecache.storage.rollup import RolledUp, roll_up
from django_safecache.storage.totals import Stored, store, store_trouble

__all__ = [
    "RolledUp",
    "Stored",
    "now_at_most",
    "roll_up",
    "store",
    "store_trouble",
    "unmute_what_exceeds",
]

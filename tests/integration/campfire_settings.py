"""Campfire's settings, as a site has them that is not looked at by its developer."""

from __future__ import annotations

import os

from config.settings import *  # noqa: F403  # all but what follows
from config.settings import CACHES, DATABASES, SAFECACHE

DEBUG = False
ROOT_URLCONF = "campfire_urls"
# Many processes write to one file: readers need not wait, writers may.
DATABASES["default"]["OPTIONS"] = {
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
}
# What is shown stale must not be healed by its age.
CACHES["default"]["TIMEOUT"] = 86_400
SAFECACHE["FLUSH_INTERVAL"] = float(os.environ.get("CAMPFIRE_FLUSH_INTERVAL", "0.5"))

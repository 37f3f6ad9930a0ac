"""Settings of the site whose counts are compared with what it was asked."""

from __future__ import annotations

import os

from told_database import told_database

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": told_database()}
# The site's own connection is not the one that stores the counts.
DATABASES["default"]["ATOMIC_REQUESTS"] = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_safecache",
]
MIDDLEWARE = ["exact_site.TellAllTheSame"]
ROOT_URLCONF = "exact_site"
CACHES = {
    "default": {
        "BACKEND": "django_safecache.backend.SafeCache",
        "LOCATION": os.environ["EXACT_MEMCACHED"],
    }
}
SAFECACHE = {
    "FLUSH": os.environ["EXACT_FLUSH"],
    "FLUSH_INTERVAL": float(os.environ["EXACT_INTERVAL"]),
    # A group for each key, so that the tables can be compared key for key.
    "KEY_GROUPS": [
        *((f"^k/{number:02}/", f"k/{number:02}") for number in range(16)),
        ("^load/", "load"),
    ],
}

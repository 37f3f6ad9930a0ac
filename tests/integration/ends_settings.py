"""Settings of a site that stores nothing until its process ends."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["ENDS_DATABASE"],
    }
}
INSTALLED_APPS = ["django_safecache", "ends"]
ROOT_URLCONF = "ends_site"
SAFECACHE = {"FLUSH": os.environ.get("ENDS_FLUSH", "thread"), "FLUSH_INTERVAL": 3600}
# As in the README.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
        "digest": {"class": "django_safecache.recording.log_handler.DigestHandler"},
    },
    "root": {"handlers": ["console", "digest"]},
}
if "ENDS_WATCHED" in os.environ:
    # The reloader watches what is imported.
    __import__(os.environ["ENDS_WATCHED"])

"""Django settings of the test suite: no cache server of their own, and SQLite, unless
`real_databases.py` tells of another database in the environment."""

from __future__ import annotations

import os
import tempfile

from told_database import told_database

SECRET_KEY = "tests"
DEBUG = False
USE_TZ = True
TIME_ZONE = "UTC"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        # A file, because Django never closes a thread's connection to one in memory.
        "TEST": {"NAME": f"{tempfile.gettempdir()}/safecache-{os.getpid()}.sqlite3"},
    }
}
if database := told_database():
    DATABASES["default"] = database
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_safecache",
    "campfire",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "config.urls"
STATIC_URL = "static/"
# A test that wants a cache overrides this with the server it started.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
SAFECACHE = {"FLUSH": "manual"}

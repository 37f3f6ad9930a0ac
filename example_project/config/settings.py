"""Settings of the example: loopback, SQLite, mail to files. Not for a server.

The environment may say otherwise: `CAMPFIRE_MEMCACHED` (`host:port`), `CAMPFIRE_VAR`
(the folder of database and mail) and `CAMPFIRE_DATABASE` (path of the SQLite file).
"""

from __future__ import annotations

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("CAMPFIRE_VAR", BASE_DIR / "var"))
VAR_DIR.mkdir(parents=True, exist_ok=True)

SECRET_KEY = "the example's key is public; make your own"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]

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
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
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
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CAMPFIRE_DATABASE", VAR_DIR / "campfire.sqlite3"),
    }
}

CACHES = {
    "default": {
        "BACKEND": "django_safecache.backend.SafeCache",
        "LOCATION": os.environ.get("CAMPFIRE_MEMCACHED", "127.0.0.1:11211"),
    }
}

# Everything below is for the counts, the dashboard and the daily mail only.
SAFECACHE = {
    "FLUSH": "thread",
    "KEY_GROUPS": [
        (r"^text_messages/", "text"),
        (r"^timestamp_messages/", "timestamp"),
        (r"^paste_messages/", "paste"),
        (r"^enter_messages/", "enter"),
        (r"^kick_messages/", "kick"),
        (r"^upload_messages/", "upload"),
    ],
    "DIGEST": {
        "RECIPIENTS": ["ops@campfire.example"],
        "FROM": "campfire@campfire.example",
        "ENVIRONMENT": "example",
    },
}

MAIL_DIR = VAR_DIR / "mail"
if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "OPTIONS": {"file_path": MAIL_DIR},
        }
    }
else:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = MAIL_DIR

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        # Counts the exceptions of the whole application for the daily mail.
        "digest": {
            "class": "django_safecache.recording.log_handler.DigestHandler",
            "level": "ERROR",
        },
        "console": {"class": "logging.StreamHandler"},
    },
    "root": {"handlers": ["console", "digest"], "level": "INFO"},
}

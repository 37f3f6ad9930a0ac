"""The site of `exact_site` for gunicorn."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

import exact_site

exact_site.watch()

"""``path("safecache/", include("django_safecache.browser.urls"))``"""

from __future__ import annotations

from django.urls import path

from django_safecache.browser.views import report

app_name = "django_safecache"
urlpatterns = [path("browser-errors/", report, name="browser_errors")]

"""The chat at the root, Django's admin with the cache dashboard beside it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("campfire.urls")),
    path("admin/", admin.site.urls),
]

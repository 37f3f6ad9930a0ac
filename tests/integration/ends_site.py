"""A site whose pages count a hit each, as a cache would have told it."""

from __future__ import annotations

import os

from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_safecache.memcached.outcomes import Outcome, observers


def count(hits: int = 1) -> None:
    observers.observe(Outcome("default", "A", "get", (), hits=hits))


def hit(request: HttpRequest) -> HttpResponse:
    count()
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("", hit)]

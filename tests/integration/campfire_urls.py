"""Campfire's pages, and the transcript again through the asynchronous API."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from campfire.fragments import loads_noted, transcript_keys
from campfire.models import Room
from config.urls import urlpatterns as campfire_urlpatterns
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import aget_object_or_404, render
from django.urls import path
from tally import count_until_exit

# A process that serves a page has loaded this module before it asks the cache.
count_until_exit()


async def transcript(request: HttpRequest, room_id: int) -> HttpResponse:
    """As `campfire.views.transcript`, with ``aget_or_load_many``."""
    room = await aget_object_or_404(Room, pk=room_id)
    keys = await sync_to_async(transcript_keys)(room)
    with loads_noted() as loaded:
        fragments = await cache.aget_or_load_many(keys)
    shown = [fragments[key] for key in keys if key in fragments]
    context = {
        "room": room,
        "fragments": shown,
        "from_cache": len(shown) - len(loaded),
        "from_database": len(loaded),
    }
    page = "campfire/transcript.html"
    return await sync_to_async(render)(request, page, context)


urlpatterns = [
    path("async/rooms/<int:room_id>/", transcript),
    *campfire_urlpatterns,
]

"""The pages of the chat."""

from __future__ import annotations

from django.core.cache import cache
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from campfire.fragments import loads_noted, transcript_keys
from campfire.models import Room


def rooms(request: HttpRequest) -> HttpResponse:
    """All rooms, with the number of their messages."""
    found = Room.objects.annotate(entries=Count("messages")).order_by("name")
    return render(request, "campfire/rooms.html", {"rooms": found})


def transcript(request: HttpRequest, room_id: int) -> HttpResponse:
    """Everything said in a room, from one read of many keys.

    What the cache has not, or cannot give because it does not answer, comes from
    `campfire.fragments.load_fragments`; the page is the same.
    """
    room = get_object_or_404(Room, pk=room_id)
    keys = transcript_keys(room)
    with loads_noted() as loaded:
        fragments = cache.get_or_load_many(keys)
    shown = [fragments[key] for key in keys if key in fragments]
    return render(
        request,
        "campfire/transcript.html",
        {
            "room": room,
            "fragments": shown,
            "from_cache": len(shown) - len(loaded),
            "from_database": len(loaded),
        },
    )

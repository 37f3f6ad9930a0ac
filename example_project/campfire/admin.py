"""Rooms and messages in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from campfire.models import Message, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ("name", "last_read")


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ("id", "room", "kind", "author", "created")
    list_filter = ("kind", "room")
    search_fields = ("author", "body")

    def has_change_permission(
        self, request: HttpRequest, obj: Message | None = None
    ) -> bool:
        # What was said stays said: nothing in a fragment's key would change with
        # the body, so the cache would go on showing the old one.
        return False

"""Make the room of the example and, while DEBUG is on, somebody to log in as."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from campfire.models import Message, Room
from campfire.seed.messages import ROOM_NAME, seed_last_read, seed_messages

ADMIN = PASSWORD = "campfire"


class Command(BaseCommand):
    help = "Makes the room of 421 messages and the admin user; again changes nothing."

    def handle(self, *args: object, **options: object) -> None:
        with transaction.atomic():
            room, new = self._load_room()
            total = room.messages.count()
            self.stdout.write(f"Room {room.name}: {total} messages, {new} of them new.")
            self.stdout.write(self._make_admin())

    def _load_room(self) -> tuple[Room, int]:
        room, _ = Room.objects.get_or_create(
            name=ROOM_NAME, defaults={"last_read": seed_last_read()}
        )
        before = room.messages.count()
        Message.objects.bulk_create(seed_messages(room), ignore_conflicts=True)
        return room, room.messages.count() - before

    def _make_admin(self) -> str:
        users = get_user_model()._default_manager
        if users.filter(username=ADMIN).exists():
            return f"User {ADMIN}: there already."
        # A password that stands in a public repository is for loopback only.
        if not settings.DEBUG:
            return f"User {ADMIN}: not made, DEBUG is off."
        users.create_superuser(ADMIN, "", PASSWORD)
        return f"User {ADMIN}: made, the password is {PASSWORD}."

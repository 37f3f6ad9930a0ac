"""Rooms and what was said in them."""

from __future__ import annotations

from django.db import models
from django.urls import reverse
from django.utils import timezone


class Room(models.Model):
    name = models.CharField(max_length=80, unique=True)
    last_read = models.BigIntegerField(
        default=0,
        help_text="Id of the last message that has been read; later ones are marked. "
        "A chat with accounts would keep one for each reader.",
    )

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("campfire:transcript", args=[self.pk])


class Message(models.Model):
    """One entry of a room's transcript, in the order of the ids."""

    class Kind(models.TextChoices):
        TEXT = "text"
        ENTER = "enter"
        KICK = "kick"
        TIMESTAMP = "timestamp"
        PASTE = "paste"
        UPLOAD = "upload"

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.TEXT)
    author = models.CharField(max_length=40, blank=True)
    body = models.TextField(blank=True)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

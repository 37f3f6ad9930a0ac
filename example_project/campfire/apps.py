"""The chat application."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class CampfireConfig(AppConfig):
    name = "campfire"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Importing the module registers its loader.
        import_module("campfire.fragments")

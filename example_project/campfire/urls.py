"""The pages of the chat."""

from __future__ import annotations

from django.urls import path

from campfire import views

app_name = "campfire"
urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("rooms/<int:room_id>/", views.transcript, name="transcript"),
]

"""The example's room, made from the seed."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from campfire.fragments import load_fragments, transcript_keys
from campfire.models import Message, Room
from django.contrib.auth import authenticate
from django.core.management import call_command

SEED = Path(__file__).parents[2] / "example_project/campfire/seed/keys.txt"

pytestmark = pytest.mark.django_db


def load_room() -> str:
    out = StringIO()
    call_command("load_room", stdout=out)
    return out.getvalue()


class TestLoadRoom:
    def test_it_says_what_it_did(self):
        """Without DEBUG there is no user with a public password."""
        assert load_room() == (
            "Room Campfire: 421 messages, 421 of them new.\n"
            "User campfire: not made, DEBUG is off.\n"
        )

    def test_a_second_time_changes_nothing(self, settings):
        """Rows and user are the same after it, and it says so."""
        settings.DEBUG = True
        assert "User campfire: made, the password is campfire." in load_room()
        before = list(Message.objects.values_list())
        assert load_room() == (
            "Room Campfire: 421 messages, 0 of them new.\n"
            "User campfire: there already.\n"
        )
        assert list(Message.objects.values_list()) == before

    def test_the_admin_can_log_in(self, settings):
        """The user it prints is the user it made."""
        settings.DEBUG = True
        load_room()
        user = authenticate(username="campfire", password="campfire")
        assert user is not None
        assert user.is_superuser


class TestKeys:
    def test_they_are_the_seeds(self):
        """Both flags follow from authors and times: all 421 keys, in order."""
        load_room()
        assert transcript_keys(Room.objects.get()) == (
            SEED.read_text(encoding="ascii").splitlines()
        )

    def test_one_query(self, django_assert_num_queries):
        """The keys cost one query, however many they are."""
        load_room()
        room = Room.objects.get()
        with django_assert_num_queries(1):
            transcript_keys(room)


class TestLoader:
    def test_one_query_renders_all(self, django_assert_num_queries):
        """421 fragments of about half a kilobyte from one query."""
        load_room()
        keys = transcript_keys(Room.objects.get())
        with django_assert_num_queries(1):
            fragments = load_fragments(keys)
        assert list(fragments) == keys
        sizes = [len(html.encode()) for html in fragments.values()]
        assert 400 <= sum(sizes) / len(sizes) <= 600

    def test_what_was_said_is_escaped(self):
        """HTML in author and body is shown as text, in every kind."""
        room = Room.objects.create(name="<i>room</i>")
        for kind in Message.Kind.values:
            Message.objects.create(
                room=room, kind=kind, author="<b>A</b>", body="<script>1 & 2</script>"
            )
        page = "".join(load_fragments(transcript_keys(room)).values())
        assert "<script" not in page
        assert "<b>A" not in page
        assert "&lt;script&gt;1 &amp; 2&lt;/script&gt;" in page
        assert "&lt;b&gt;A&lt;/b&gt;" in page

    def test_a_message_that_is_gone_has_no_fragment(self):
        """The key of a deleted message is absent, the others are there."""
        load_room()
        keys = transcript_keys(Room.objects.get())
        Message.objects.get(pk=343663289).delete()
        assert set(keys) - set(load_fragments(keys)) == {
            "text_messages/343663289/"
            "hide_author=false&hide_date=true&last_read=343841341"
        }

    def test_the_flags_decide(self):
        """Author, date and the mark of the unread follow the key, not the row."""
        load_room()
        shown, hidden = load_fragments(
            [
                "text_messages/343663289/"
                "hide_author=false&hide_date=false&last_read=343663288",
                "text_messages/343663289/"
                "hide_author=true&hide_date=true&last_read=343663289",
            ]
        ).values()
        for mark in ('class="author"', 'class="day"', " unread"):
            assert mark in shown
            assert mark not in hidden

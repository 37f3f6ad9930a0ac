"""The transcript page: 421 fragments, whatever the cache does."""

from __future__ import annotations

from io import StringIO

import pytest
from campfire.models import Message, Room
from django.core.cache import cache
from django.core.management import call_command

from django_safecache.testing import LocalMemcached


@pytest.fixture
def server(settings):
    """The stand-in, and the site uses it."""
    with LocalMemcached() as server:
        settings.CACHES = {
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": server.address,
            }
        }
        yield server
        cache.disconnect_all()


@pytest.fixture
def room(db):
    call_command("load_room", stdout=StringIO())
    return Room.objects.get()


class TestTranscript:
    def test_the_first_page_fills_the_cache_and_the_second_uses_it(
        self, client, room, server, django_assert_num_queries
    ):
        """421 fragments, then the same page without the fragments' query."""
        with django_assert_num_queries(3):
            first = client.get(room.get_absolute_url())
        with django_assert_num_queries(2):
            second = client.get(room.get_absolute_url())
        assert counts(first) == (200, 421, 0, 421)
        assert counts(second) == (200, 421, 421, 0)
        assert transcript_of(first) == transcript_of(second)

    def test_one_read_of_many_lines(self, client, room, server):
        """One exchange on one connection; no line is longer than 1024 bytes."""
        client.get(room.get_absolute_url())
        server.clear_record()
        client.get(room.get_absolute_url())
        assert set(server.commands) == {"get"}
        assert sum(line.count(b"_messages/") for line in server.lines) == 421
        assert max(map(len, server.lines)) <= 1024
        assert server.connections_accepted == 0

    def test_without_the_cache_the_page_is_the_same(
        self, client, room, server, django_assert_num_queries
    ):
        """The server stops between two pages: one query more, nothing else."""
        client.get(room.get_absolute_url())
        before = client.get(room.get_absolute_url())
        server.stop()
        with django_assert_num_queries(3):
            after = client.get(room.get_absolute_url())
        assert counts(after) == (200, 421, 0, 421)
        assert transcript_of(after) == transcript_of(before)

    def test_a_new_message_is_one_fragment_more(self, client, room, server):
        """Only what the cache has not is loaded."""
        client.get(room.get_absolute_url())
        Message.objects.create(room=room, kind="text", author="Zoë", body="1 < 2")
        page = client.get(room.get_absolute_url())
        assert counts(page) == (200, 422, 421, 1)
        assert "1 &lt; 2" in page.content.decode()

    def test_what_the_cache_gave_is_not_escaped_again(self, client, room, server):
        """Cached fragments are HTML; what was said in them stays text."""
        for _ in range(2):
            html = client.get(room.get_absolute_url()).content.decode()
            assert "<script" not in html
            assert "&lt;script&gt;alert(&quot;hello&quot;)" in html
            assert "&amp;lt;" not in html
            assert "日本語" in html

    def test_the_day_is_written_once_and_on_the_first_timestamp(
        self, client, room, server
    ):
        """As in the seed, where two keys say hide_date=false."""
        html = client.get(room.get_absolute_url()).content.decode()
        assert html.count('<h2 class="day">Tuesday, 10 May 2011</h2>') == 1
        assert html.count("10 May 2011, ") == 1

    def test_no_such_room(self, client, db):
        """404 before anything is asked of the cache."""
        assert client.get("/rooms/1/").status_code == 404


class TestRooms:
    def test_all_rooms_are_listed(self, client, room):
        """With the number of their messages and a link to the transcript."""
        html = client.get("/").content.decode()
        assert f'<a href="/rooms/{room.pk}/">Campfire</a> 421 messages' in html

    def test_without_a_room_it_says_what_to_do(self, client, db):
        """A fresh database shows the command, not an empty page."""
        assert "manage.py load_room" in client.get("/").content.decode()


class TestMessageAdmin:
    def test_what_was_said_cannot_be_changed(self, admin_client, room):
        """It would go on being shown as it was, from the cache."""
        url = f"/admin/campfire/message/{Message.objects.first().pk}/change/"
        assert admin_client.get(url).status_code == 200
        assert admin_client.post(url, {"body": "other"}).status_code == 403


def counts(response) -> tuple[int, int, int, int]:
    """Status, fragments in the page, and where it says that they are from."""
    return (
        response.status_code,
        response.content.decode().count('<article class="fragment '),
        response.context["from_cache"],
        response.context["from_database"],
    )


def transcript_of(response) -> str:
    return response.content.decode().partition("<footer>")[0]

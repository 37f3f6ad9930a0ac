"""The fragments a transcript is made of: their keys, and the loader that renders them.

A key holds everything a fragment depends on besides its message::

    text_messages/343663289/hide_author=false&hide_date=true&last_read=343841341
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from django.template.loader import get_template
from django.utils import timezone
from django.utils.safestring import SafeString

from campfire.models import Message, Room
from django_safecache.loaders import cache_loader

Kind = Message.Kind

SPOKEN = frozenset({Kind.TEXT, Kind.PASTE, Kind.UPLOAD})

KEY = re.compile(
    rf"^(?:{'|'.join(Kind.values)})_messages/(?P<id>\d+)"
    r"/hide_author=(?P<hide_author>true|false)"
    r"&hide_date=(?P<hide_date>true|false)"
    r"&last_read=(?P<last_read>\d+)$"
)

_loaded: ContextVar[list[str] | None] = ContextVar("loaded_fragments", default=None)


def transcript_keys(room: Room) -> list[str]:
    """The keys of the room's fragments, in order, in one query.

    The author is hidden when the entry before was said by the same person. The
    date is shown on a day's first timestamp and on its first other entry.
    """
    keys = []
    speaker = None
    dated = set()
    for message in room.messages.only("id", "room_id", "kind", "author", "created"):
        spoken = message.kind in SPOKEN
        bearer = (
            timezone.localdate(message.created),
            message.kind == Kind.TIMESTAMP,
        )
        hide_author = spoken and message.author == speaker
        keys.append(
            f"{message.kind}_messages/{message.pk}"
            f"/hide_author={str(hide_author).lower()}"
            f"&hide_date={str(bearer in dated).lower()}"
            f"&last_read={room.last_read}"
        )
        speaker = message.author if spoken else None
        dated.add(bearer)
    return keys


@cache_loader(KEY)
def load_fragments(keys: Sequence[str]) -> Mapping[str, SafeString]:
    """Render the fragments of `keys` from the database, in one query.

    Keys of messages that are gone are absent from the result.
    """
    wanted = {key: match for key in keys if (match := KEY.match(key))}
    messages = Message.objects.in_bulk({int(match["id"]) for match in wanted.values()})
    template = get_template("campfire/fragment.html")
    fragments = {}
    for key, match in wanted.items():
        if message := messages.get(int(match["id"])):
            fragments[key] = template.render(
                {
                    "message": message,
                    "hide_author": match["hide_author"] == "true",
                    "hide_date": match["hide_date"] == "true",
                    "unread": message.pk > int(match["last_read"]),
                }
            )
    if (loaded := _loaded.get()) is not None:
        loaded.extend(fragments)
    return fragments


@contextmanager
def loads_noted() -> Iterator[list[str]]:
    """Yield a list of the keys that are loaded in this thread inside the block.

    What another request loads for this one, because both wanted it at the same
    moment, is not in it.
    """
    token = _loaded.set(loaded := [])
    try:
        yield loaded
    finally:
        _loaded.reset(token)

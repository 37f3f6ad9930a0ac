"""Made-up messages under the ids and kinds of `keys.txt`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from django.utils import timezone

from campfire.fragments import KEY, SPOKEN
from campfire.models import Message, Room

Kind = Message.Kind
SEED = Path(__file__).resolve().parent

ROOM_NAME = "Campfire"
AUTHORS = ("Amélie", "Björn", "Chiara", "Dmitri", "Ewa", "Farid")
PASTES = (
    "write(7, buffer, 4096) = 4096\nwrite(7, buffer, 4096) = 4096\n"
    "write(7, buffer, 4096) = -1 EPIPE (Broken pipe)",
    'if (length < 1024 && memcmp(line, "get", 3)) {\n    close(fd);\n}',
    "SELECT author, count(*) FROM messages\nWHERE created > '2011-05-10' AND "
    "kind <> 'timestamp'\nGROUP BY author ORDER BY 2 DESC;",
)
UPLOADS = ("rack 3, fan.jpg", "café-menu.pdf", "hits & misses.png", "trace<4096>.txt")


def seed_keys() -> list[str]:
    """The keys of `keys.txt`, in order."""
    return (SEED / "keys.txt").read_text(encoding="ascii").splitlines()


def seed_last_read() -> int:
    """The id of the last message that had been read, the same in every key."""
    return int(_match(seed_keys()[0])["last_read"])


def seed_messages(room: Room) -> Iterator[Message]:
    """The unsaved messages of the seed, the same at every call.

    Authors follow from the keys: the same as before where the author is hidden,
    another one where the author is shown.
    """
    sentences = (SEED / "sentences.txt").read_text(encoding="utf-8").splitlines()
    keys = seed_keys()
    first = int(_match(keys[0])["id"])
    morning = datetime(2011, 5, 10, 6, 30, tzinfo=timezone.get_default_timezone())
    author = 0
    for key in keys:
        match = _match(key)
        number = int(match["id"])
        kind = Kind(key.partition("_messages/")[0])
        if match["hide_author"] == "false":
            author = (author + 1 + number % (len(AUTHORS) - 1)) % len(AUTHORS)
        yield Message(
            id=number,
            room=room,
            kind=kind,
            author="" if kind == Kind.TIMESTAMP else AUTHORS[author],
            body=_body(kind, number, sentences) if kind in SPOKEN else "",
            # 486,416 ids from first to last: at ten a second the day ends at 20:00.
            created=morning + timedelta(seconds=(number - first) // 10),
        )


def _match(key: str) -> dict[str, str]:
    if match := KEY.match(key):
        return match.groupdict()
    raise ValueError(f"not a fragment key: {key}")


def _body(kind: Kind, number: int, sentences: list[str]) -> str:
    if kind == Kind.PASTE:
        return PASTES[number % len(PASTES)]
    if kind == Kind.UPLOAD:
        return UPLOADS[number % len(UPLOADS)]
    # 7 and the number of sentences have no common factor: no sentence comes twice.
    picked = (sentences[(number + 7 * i) % len(sentences)] for i in range(6))
    return " ".join(picked)

"""The one process that edits messages, as an application does, until its input ends.

    python writer.py JOURNAL EDITS_A_SECOND

First the database, then the cache: by turns ``set`` with what the page is to show, and
``delete``. Messages take turns as well, so that one is not edited again while an older
write of it may still be on its way.
"""

from __future__ import annotations

import re
import select
import sys
import time
from collections import deque
from itertools import cycle
from pathlib import Path

import django

django.setup()

from campfire.fragments import load_fragments, transcript_keys
from campfire.models import Message, Room
from django.core.cache import cache
from journal import Edit, Pen, revised, shown
from tally import count_until_exit

from django_safecache.memcached.outcomes import Outcome, observers

READ_BACK = 10
"""Of how many messages, those edited last, the writer reads the keys after an edit."""
MESSAGE = re.compile(r'id="message-(\d+)"')


class Unanswered:
    """An observer of which keys the server did not answer for: `delete` returns False
    for them as for keys that were not there."""

    def __init__(self) -> None:
        self.writes: set[object] = set()

    def observe(self, outcome: Outcome) -> None:
        if outcome.operation in ("set", "delete"):
            self.writes.update(outcome.lost)


class Writer:
    """Edits the texts of the room, one after the other."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._unanswered = Unanswered()
        observers.connect(self._unanswered)
        room = Room.objects.get()
        texts = room.messages.filter(kind=Message.Kind.TEXT)
        self._texts = dict(texts.values_list("pk", "body"))
        self._keys = {int(key.split("/")[1]): key for key in transcript_keys(room)}
        self._revisions = dict.fromkeys(self._texts, 0)
        self._messages = cycle(self._texts)
        self._operations = cycle(["set", "delete"])
        self._latest: deque[int] = deque(maxlen=READ_BACK)

    def edit(self) -> None:
        message, operation = next(self._messages), next(self._operations)
        key = self._keys[message]
        revision = self._revisions[message] = self._revisions[message] + 1
        self._latest.append(message)
        began = time.monotonic()
        body = revised(self._texts[message], message, revision)
        Message.objects.filter(pk=message).update(body=body)
        self._unanswered.writes.clear()
        if operation == "set":
            cache.set(key, load_fragments([key])[key])
        else:
            cache.delete(key)
        acknowledged = time.monotonic()
        answered = key not in self._unanswered.writes
        checked, stale = self._read_back()
        self._pen.write(
            Edit(
                message,
                revision,
                operation,
                began,
                acknowledged,
                answered,
                checked,
                stale,
            )
        )

    def _read_back(self) -> tuple[int, list[tuple[int, int]]]:
        """How many keys, and the messages that are older than they ought to be."""
        keys = [self._keys[message] for message in dict.fromkeys(self._latest)]
        stale = []
        for fragment in cache.read_many(keys).found.values():
            message = int(MESSAGE.search(fragment)[1])
            revision, _ = shown(fragment)
            if revision < self._revisions[message]:
                stale.append((message, revision))
        return len(keys), stale


def main() -> None:
    count_until_exit()
    pen = Pen(Path(sys.argv[1]))
    pause = 1 / float(sys.argv[2])
    writer = Writer(pen)
    next_edit = time.monotonic()
    while not select.select([sys.stdin], [], [], _until(next_edit))[0]:
        next_edit = max(next_edit, time.monotonic() - pause) + pause
        writer.edit()
    pen.close()


def _until(moment: float) -> float:
    return max(moment - time.monotonic(), 0.0)


if __name__ == "__main__":
    main()

"""Single keys: as a page uses them, and beside pymemcache's client itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from measurement import Contender, Row, faster, in_turns, medians
from pymemcache import Client, PooledClient
from pymemcache.serde import pickle_serde
from stage import Stage, available
from transcript import equals

CALLS_A_REQUEST = 10
CALLS = 20
"""Operations between two looks at the clock."""
VALUE = "é".ljust(100, "v")
OTHER_VALUE = "ü".ljust(100, "w")

Operation = Callable[[str], Any]


def one_key(stage: Stage, rounds: int) -> Iterator[Row]:
    """`get`, as requests do it: Django closes all caches at the end of each."""
    stage.cache("SafeCache").set("one", VALUE)
    contenders = [_request(name, stage.cache(name)) for name in available()]
    figures = medians(in_turns(contenders, rounds * 5))
    yield Row(
        f"get of one key, with close() after every {CALLS_A_REQUEST}",
        figures,
        [
            faster(figures, "PyMemcacheCache", 1.5, 2.5),
            *(faster(figures, name) for name in available()[2:]),
        ],
        "Time per get, the share of a close in it. PyMemcacheCache connects again "
        "after each close; SafeCache and PyLibMCCache keep their connections.",
        rounds=rounds * 5,
    )


def _request(name: str, cache: Any) -> Contender:
    def call() -> list[Any]:
        found = [cache.get("one") for _ in range(CALLS_A_REQUEST)]
        cache.close()
        return found

    def check(found: list[Any]) -> None:
        equals([VALUE] * CALLS_A_REQUEST, found)

    return Contender(name, call, check, times=CALLS_A_REQUEST)


def commands(stage: Stage, rounds: int) -> Iterator[Row]:
    """Every command beside pymemcache's clients with a kept connection."""
    cache = stage.cache("SafeCache")
    host, port = stage.address("near").split(":")
    server = (host, int(port))
    patience = {"timeout": 0.5, "connect_timeout": 0.3}
    clients = {
        "PooledClient": _client(PooledClient, server, **patience),
        "Client": _client(Client, server, **patience),
        "Client, no timeout": _client(Client, server),
    }
    try:
        for command in ("get", "set", "add", "delete", "incr", "touch"):
            contenders = [_block("SafeCache", command, _of_cache(cache, command))]
            contenders += [
                _block(name, command, _of_client(client, command))
                for name, client in clients.items()
            ]
            figures = medians(in_turns(contenders, rounds * 2))
            yield _command_row(command, figures, rounds * 2)
    finally:
        for client in clients.values():
            client.close()


def _command_row(command: str, figures: dict[str, float], rounds: int) -> Row:
    return Row(
        f"{command} of one key, beside pymemcache's Client",
        figures,
        [
            faster(figures, "PooledClient"),
            faster(figures, "Client", 1),
            faster(figures, "Client, no timeout"),
        ],
        "The clients keep their connections, and have SafeCache's timeouts (or, below, "
        "none: then they may wait for ever), no_delay, acknowledged commands "
        "(default_noreply=False) and the same serde; they count nothing, and are given "
        "keys already made. The PooledClient can be used by threads, as SafeCache can; "
        "the Client can not.",
        rounds=rounds,
    )


AnyClient = Client | PooledClient


def _client(
    kind: type[AnyClient], server: tuple[str, int], **timeouts: float
) -> AnyClient:
    return kind(
        server,
        serde=pickle_serde,
        no_delay=True,
        default_noreply=False,
        allow_unicode_keys=True,
        **timeouts,
    )


PREPARED: dict[str, Callable[[Any, list[str]], None]] = {
    "get": lambda cache, keys: cache.set_many(dict.fromkeys(keys, VALUE)),
    "set": lambda cache, keys: cache.set_many(dict.fromkeys(keys, OTHER_VALUE)),
    "add": lambda cache, keys: cache.delete_many(keys),
    "delete": lambda cache, keys: cache.set_many(dict.fromkeys(keys, VALUE)),
    "incr": lambda cache, keys: cache.set_many(dict.fromkeys(keys, 41)),
    "touch": lambda cache, keys: cache.set_many(dict.fromkeys(keys, VALUE)),
}
"""What the keys hold before a command, and what it answers for each of them."""
ANSWERS = {
    "get": VALUE,
    "set": None,
    "add": True,
    "delete": True,
    "incr": 42,
    "touch": True,
}
HELD = {"get": VALUE, "set": VALUE, "add": VALUE, "incr": 42, "touch": VALUE}
"""What they hold afterwards."""


def _of_cache(cache: Any, command: str) -> tuple[Any, list[str], Operation]:
    keys = [f"command:{n}" for n in range(CALLS)]
    operations: dict[str, Operation] = {
        "set": lambda key: cache.set(key, VALUE, 300),
        "add": lambda key: cache.add(key, VALUE, 300),
        "touch": lambda key: cache.touch(key, 300),
    }
    return cache, keys, operations.get(command) or getattr(cache, command)


def _of_client(client: AnyClient, command: str) -> tuple[Any, list[str], Operation]:
    keys = [f":1:client:{n}" for n in range(CALLS)]
    operations: dict[str, Operation] = {
        # The client says True where Django's API says None.
        "set": lambda key: client.set(key, VALUE, 300) and None,
        "add": lambda key: client.add(key, VALUE, 300),
        "incr": lambda key: client.incr(key, 1),
        "touch": lambda key: client.touch(key, 300),
    }
    return client, keys, operations.get(command) or getattr(client, command)


def _block(name: str, command: str, of: tuple[Any, list[str], Operation]) -> Contender:
    cache, keys, operation = of

    def check(answers: list[Any]) -> None:
        equals([ANSWERS[command]] * CALLS, answers)
        held = HELD.get(command)
        expected = {} if held is None else dict.fromkeys(keys, held)
        equals(expected, cache.get_many(keys))

    return Contender(
        name,
        lambda: [operation(key) for key in keys],
        check,
        prepare=lambda: PREPARED[command](cache, keys),
        times=CALLS,
    )

"""Errors of memcached clients and of Django, each raised for real, by their causes.

A cause is what was done to the client: a fault of a `LocalMemcached`, a dead port, a
value that is too large. Which server, key and call it met is not part of it.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.template.loader import get_template
from pymemcache import Client

from django_safecache.backend import SafeCache
from django_safecache.memcached.outcomes import observers
from django_safecache.testing import Faults, LocalMemcached

SERVERS = 3
SECONDS = 0.05
"""The timeout of who is to run into one; all others are patient."""
PATIENT = 30
KEYS = (
    *(f"user:{number}:profile" for number in (1, 17, 4711)),
    *(f"session:{name}" for name in ("anna", "bela", "carlo")),
    "text_messages/343663289/hide_author=false&hide_date=true",
    "room",
)
FAULTS = {
    # Whether before or in the middle of its answer is the same to who waits for it.
    "closed": lambda key: (
        Faults(close_at=1) if len(key) % 2 else Faults(cut_reply_after=3)
    ),
    "reset": lambda key: Faults(reset_at=1),
    "timeout": lambda key: Faults(stall=True),
    "too many connections": lambda key: Faults(too_many_connections=True),
    "out of memory": lambda key: Faults(
        answer=b"SERVER_ERROR out of memory storing object of %d bytes" % len(key)
    ),
    "not allowed": lambda key: Faults(
        answer=b"SERVER_ERROR cannot store :1:%b now" % key.encode()
    ),
    "line too long": lambda key: Faults(
        answer=b"CLIENT_ERROR line too long at %d" % (len(key) * 97)
    ),
}


@dataclass(frozen=True)
class Event:
    """One error, as it is handed to whoever counts it."""

    cause: str
    exception: BaseException


class Servers:
    """A few servers on ports of their own, and faults for all of them."""

    def __enter__(self):
        with ExitStack() as stack:
            self.running = [
                stack.enter_context(LocalMemcached()) for _ in range(SERVERS)
            ]
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._ends.close()

    def failing(self) -> Iterator[tuple[str, LocalMemcached, str]]:
        """Cause, server and key, with the faults of the cause set."""
        for cause, faults in FAULTS.items():
            for server in self.running:
                for key in KEYS:
                    server.faults = faults(key)
                    yield cause, server, key
                server.faults = Faults()

    @contextmanager
    def dead(self) -> Iterator[list[str]]:
        """Addresses that refuse connections."""
        sockets = [socket.socket() for _ in range(SERVERS)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))  # and does not listen
        yield ["{}:{}".format(*each.getsockname()) for each in sockets]
        for each in sockets:
            each.close()


NO_HOSTS = [f"no-such-host-{n}.invalid:{11211 + n}" for n in range(SERVERS)]


def raised(cause: str, call: Callable[..., object], *given: object) -> Iterator[Event]:
    try:
        call(*given)
    except Exception as error:
        yield Event(cause, error)


# pymemcache


def _patience(cause: str) -> float:
    return SECONDS if cause == "timeout" else PATIENT


def _pymemcache(address: str, cause: str = "") -> Client:
    host, _, port = address.partition(":")
    patience = _patience(cause)
    return Client(
        (host, int(port)),
        timeout=patience,
        connect_timeout=patience,
        default_noreply=False,
    )


def of_pymemcache(servers: Servers) -> Iterator[Event]:
    for cause, server, key in servers.failing():
        yield from _calls_of_pymemcache(cause, server.address, key)
    with servers.dead() as addresses:
        for address in addresses:
            yield from _calls_of_pymemcache("refused", address, KEYS[0])
    for address in NO_HOSTS:
        yield from _calls_of_pymemcache("no such host", address, KEYS[0])
    for server in servers.running:
        yield from _epipe_of_pymemcache(server)
        client = _pymemcache(server.address)
        for key in KEYS:
            client.set(key, "a word")
            large = b"x" * (1_100_000 + len(key))
            yield from raised("not a number", client.incr, key, 1)
            yield from raised("too large", client.set, key, large)
            yield from raised("long key", client.get, key * 99)
            yield from raised("key with space", client.get, f"a {key}")
        client.close()


def _calls_of_pymemcache(cause: str, address: str, key: str) -> Iterator[Event]:
    for call in (
        lambda client: client.get(key),
        lambda client: client.set(key, "value"),
        lambda client: client.get_many([key, *KEYS]),
    ):
        client = _pymemcache(address, cause)
        yield from raised(cause, call, client)
        client.close()


def _epipe_of_pymemcache(server: LocalMemcached) -> Iterator[Event]:
    """The server has closed, and has answered the byte that came then by a reset."""
    for key in KEYS:
        client = _pymemcache(server.address)
        client.get(key)
        server.drop_connections()
        client.sock.settimeout(10)
        assert client.sock.recv(1) == b""
        client.sock.sendall(b"x")
        poll = select.poll()
        poll.register(client.sock, select.POLLERR)
        assert poll.poll(10_000)
        yield from raised("epipe", client.get, key)
        client.close()


# pylibmc


def of_pylibmc(servers: Servers, pylibmc: object) -> Iterator[Event]:
    def client(address, cause=""):
        wait = int(_patience(cause) * 1e6)
        return pylibmc.Client(
            [address],
            behaviors={
                "receive_timeout": wait,
                "send_timeout": wait,
                "connect_timeout": wait // 1000,
                "_poll_timeout": wait // 1000,
            },
        )

    def calls(cause, address, key):
        yield from raised(cause, client(address, cause).get, key)
        yield from raised(cause, client(address, cause).set, key, "value")

    for cause, server, key in servers.failing():
        yield from calls(cause, server.address, key)
    with servers.dead() as addresses:
        for address in addresses:
            for key in KEYS:
                yield from calls("refused", address, key)
    for address in NO_HOSTS:
        yield from calls("no such host", address, KEYS[0])
    for server in servers.running:
        for key in KEYS:
            mine = client(server.address)
            mine.set(key, "a word")
            yield from raised("not a number", mine.incr, key)
            yield from raised("too large", mine.set, key, b"x" * 2_000_000)
            yield from raised("long key", mine.get, key * 99)
            yield from raised("not there", mine.incr, f"{key}/missing")


# SafeCache itself


class Failing:
    """An observer that keeps failures with the keys of their call."""

    def __init__(self):
        self.cause = ""
        self.seen = []

    def observe(self, outcome):
        self.seen += [
            (self.cause, failure, tuple(outcome.keys)) for failure in outcome.failures
        ]


def of_safecache(servers: Servers) -> list[tuple[str, object, tuple[object, ...]]]:
    """Cause, failure and keys: what the recorder is told of failures."""
    failing = Failing()
    observers.connect(failing)
    try:
        for cause, server, key in servers.failing():
            failing.cause = cause
            _calls_of_safecache(server.address, key, _patience(cause))
        with servers.dead() as addresses:
            failing.cause = "refused"
            for address in addresses:
                _calls_of_safecache(address, KEYS[0])
        failing.cause = "no such host"
        for address in NO_HOSTS:
            _calls_of_safecache(address, KEYS[0])
        # Others: writes of these keys were lost on those, where they are doubted yet.
        with Servers() as others:
            for server in others.running:
                for key in KEYS:
                    failing.cause = "too large"
                    large = b"x" * (1_100_000 + len(key))
                    _with_cache(server.address, lambda c, k=key, v=large: c.set(k, v))
                    failing.cause = "not decodable"
                    _leave_a_broken_pickle(server.address, key)
                    _with_cache(server.address, lambda c, k=key: c.get(k))
    finally:
        observers.disconnect(failing)
    return failing.seen


def _with_cache(
    address: str, call: Callable[[SafeCache], object], patience: float = PATIENT
) -> None:
    options = {"timeout": patience, "connect_timeout": patience, "deadline": 60}
    cache = SafeCache(address, {"OPTIONS": options})
    call(cache)
    cache.disconnect_all()


def _calls_of_safecache(address: str, key: str, patience: float = PATIENT) -> None:
    _with_cache(address, lambda cache: cache.get(key), patience)
    _with_cache(address, lambda cache: cache.set(key, "value"), patience)
    _with_cache(address, lambda cache: cache.get_many([key, *KEYS]), patience)


def _leave_a_broken_pickle(address: str, key: str) -> None:
    client = _pymemcache(address)
    client.set(f":1:{key}", b"\x80\x05 no pickle", flags=1)
    client.close()


# The site's own code


def of_a_site(servers: Servers) -> Iterator[Event]:
    """Exceptions of views, models and libraries, a few dozen values each."""
    User.objects.create_user("ana")
    for number, word in enumerate(["ana", "bob", "17", "x y", "漢字"] * 4):
        address = servers.running[number % SERVERS].address
        yield from raised("integrity", _twice_the_same_user)
        yield from raised("no such row", partial(User.objects.get, last_name=word))
        yield from raised("no such key", {}.__getitem__, word)
        yield from raised("no such setting", {}.__getitem__, "EMAIL_HOST")
        yield from raised("no number", int, f"{word}!")
        yield from raised("no template", get_template, f"t{number}.html")
        yield from raised("no such table", _ask, "SELECT * FROM nope")
        yield from raised("no room", attrgetter("room"), None)
        yield from raised("no user", attrgetter("user"), None)
        yield from raised("no such file", os.stat, f"/nonexistent/up-{number}.csv")
        yield from raised("no json", json.loads, "1" * (number + 1) + " {")
        yield from raised("no utf-8", str, b"a" * number + b"\xff", "utf-8")
        yield from raised("invalid", _fail, ValidationError(f"no {number}"))
        yield from raised("http: timeout", _ask_who_is_silent)
        yield from raised("http: no http", _fetch, address)
    with servers.dead() as addresses:
        for address in addresses:
            yield from raised("http: refused", _fetch, address)


def _twice_the_same_user() -> None:
    with transaction.atomic():
        User.objects.create_user("ana")


def _ask(sql: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def _fail(error: Exception) -> None:
    raise error


def _fetch(address: str) -> None:
    """Ask a server for HTTP, which speaks memcached."""
    urllib.request.urlopen(f"http://{address}/", timeout=5).close()


def _ask_who_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        asked = http.client.HTTPConnection(host, port, timeout=SECONDS)
        try:
            asked.request("GET", "/")
            asked.getresponse()
        finally:
            asked.close()

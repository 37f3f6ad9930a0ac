"""What is planted as a secret is in no table, log, mail or page of this package.

Each test goes one way that secrets can come; then everything is stored, mailed by a
real mail server, shown in the admin, and searched, whatever tables there are.
"""

from __future__ import annotations

import logging
import pickle
import re
import ssl
from contextlib import contextmanager, suppress

import pytest
import structlog
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.test import Client
from django.urls import include, path, reverse
from mail_server import SMTP, MailServer, mail_settings
from structlog.contextvars import bound_contextvars

from django_safecache.backend import SafeCache
from django_safecache.browser import views
from django_safecache.browser.rate_limit import RateLimit
from django_safecache.digest.delivery import close
from django_safecache.models import DigestDelivery, DigestMail, Problem
from django_safecache.recording.browser_errors import BrowserErrors
from django_safecache.recording.leftovers import Leftover, Leftovers
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.structlog_processor import count_exceptions
from django_safecache.reports import Period
from django_safecache.testing import Faults, LocalMemcached, outage
from django_safecache.testing.severed import CUTS
from django_safecache.trouble import Trouble

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

OPS = "ops@example.com"
HASTY = {"connect_timeout": 1, "timeout": 0.05, "deadline": 0.2}


class Secrets:
    """Words that stand nowhere else, and hold nothing that would be removed anyway."""

    def __init__(self):
        self.words = set()

    def __call__(self, name):
        word = f"zq{name}qz"
        self.words.add(word)
        return word

    def found_in(self, texts):
        """(word, place, what is around it) of each that can be read."""
        return [
            (word, place, text[max(0, at.start() - 60) : at.end() + 60])
            for place, text in texts.items()
            for word in sorted(self.words)
            for at in [re.search(word, text, re.IGNORECASE)]
            if at
        ]


@pytest.fixture
def secret():
    return Secrets()


class OwnLog(logging.Handler):
    """Everything that is logged under the package's name, as a site would print it."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{self.format(record)} {vars(record)}")


@pytest.fixture
def own_log():
    handler, logger = OwnLog(), logging.getLogger("django_safecache")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.DEBUG
    yield handler.lines
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.fixture
def ingest():
    ingest = apps.get_app_config("django_safecache").ingest
    ingest.recorder.reset()
    ingest.trouble = Trouble(ingest.database)
    yield ingest
    ingest.recorder.reset()


@pytest.fixture
def published(settings, ingest, own_log, tmp_path):
    """Place to text of all that the package gives away of what it has counted."""
    with MailServer() as server:
        for name, value in mail_settings(SMTP, port=server.port).items():
            setattr(settings, name, value)
        settings.SAFECACHE = {
            "FLUSH": "manual",
            "DIGEST": {"RECIPIENTS": [OPS], "FROM": "cache@example.com"},
            "BROWSER_ERRORS": {"ENABLED": True},
        }

        def publish():
            left = left_over(ingest, tmp_path / "leftovers")
            assert ingest.flush()
            period = Period.last(hours=1)
            day = Problem.objects.latest("last_seen").last_seen.date()
            assert close(day, period.end).sent == (OPS,)
            (_, message) = server.received[0]
            text, html = message.iter_parts()
            return {
                **tables(),
                **pages(),
                **left,
                "log": "\n".join(own_log),
                "headers": str(message.items()),
                "text": text.get_content(),
                "html": html.get_content(),
            }

        yield publish


def left_over(ingest, folder):
    """What a process would leave in a file, did it end now and could not store it."""
    snapshot, trouble = ingest.recorder.snapshot(), ingest.trouble
    assert snapshot.causes
    Leftovers(folder, "site").keep(Leftover(snapshot, trouble.errors))
    (file,) = folder.glob("*.json")
    found = file.read_text()
    assert all(cause.fingerprint in found for cause in snapshot.causes)
    return {"leftover": found}


def tables():
    """Every column of every row of this app's tables, whichever those are."""
    found = {}
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            if name.startswith("django_safecache_"):
                cursor.execute(f'SELECT * FROM "{name}"')  # noqa: S608
                found[name] = repr(cursor.fetchall())
    return found


def pages():
    """The pages of this app in the admin, as its operator sees them."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    addresses = [reverse("admin:django_safecache_dashboard_changelist")]
    for model in (Problem, DigestMail):
        name = f"admin:django_safecache_{model._meta.model_name}"
        addresses.append(reverse(f"{name}_changelist"))
        ids = model.objects.values_list("pk", flat=True)
        addresses += [reverse(f"{name}_change", args=[pk]) for pk in ids]
    mail = DigestMail.objects.get()
    addresses.append(reverse("admin:django_safecache_digestmail_html", args=[mail.pk]))
    responses = {address: client.get(address) for address in addresses}
    assert {response.status_code for response in responses.values()} == {200}
    return {address: each.content.decode() for address, each in responses.items()}


@contextmanager
def site_logging():
    """Both ways to count the site's exceptions."""
    handler = DigestHandler()
    logging.getLogger("shop").addHandler(handler)
    logging.getLogger("django.request").addHandler(handler)
    structlog.configure(
        processors=[
            # Not merge_contextvars, which adds what the site wants in all its events.
            count_exceptions,
            structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        logging.getLogger("shop").removeHandler(handler)
        logging.getLogger("django.request").removeHandler(handler)


def use(cache, secret):
    """Every call that takes a key or a value."""
    key, value = secret("key"), {"card": secret("value")}
    keys = [f"{key}/{part}" for part in ("a", "b")]
    calls = [
        lambda: cache.get(key),
        lambda: cache.get_many(keys),
        lambda: cache.get_or_load_many(keys, loader=dict.fromkeys, lease=1),
        lambda: cache.set(key, value),
        lambda: cache.set_many(dict.fromkeys(keys, value)),
        lambda: cache.add(key, value),
        lambda: cache.incr(key),
        lambda: cache.touch(key),
        lambda: cache.delete_many(keys),
    ]
    for call in calls:
        with suppress(ValueError):  # of incr, to its caller
            call()


# With every kind of thing that may be in it, said as libraries say it.
MESSAGES = [
    "no such user '{}'",
    "no such user “{}”",
    "cannot parse '{}\nof more lines'",
    "password={} refused",
    "PASSWORD: '{} with blanks' refused",
    '{{"api_key": "{}"}}',
    "{{'Authorization': 'Basic {}', 'Accept': '*/*'}}",
    "Authorization: Token {}",
    "401 for Bearer {}",
    "Cookie: theme=dark; name={}",
    "Set-Cookie: sessionid={}; Path=/",
    "https://ana:{}@shop.example/x unreachable",
    "https://shop.example/pay/{}?x=1 unreachable",
    "Max retries exceeded with url: /users/{}/orders (Caused by TimeoutError)",
    "GET /orders/?name={}&page=1 failed",
    "redis://:{}@10.0.0.1:6379/0 refused",
    "dbname=shop user={} host=db",
    "connection failed: dsn={}",
    'FATAL: password authentication failed for user "{}"',
    "no account for {}@example.com",
    "Command '['/usr/bin/mysql', '-p{}']' returned non-zero exit status 1.",
    "duplicate key value violates unique constraint\nDETAIL: Key (name)=({}) exists.",
    "(1045, \"Access denied for user '{}'@'10.0.0.1' (using password: YES)\")",
    "session_id {{'sid': '{}'}} expired",
    "client_secret={}&grant_type=code",
    "next=/sign-in/%3Ftoken%3D{}%26lang%3Dde",
    "cannot import name 'x' from 'shop' (/home/{}/site/shop/__init__.py)",
    "Command # 2 (HGET cart:{} total) of pipeline caused error: WRONGTYPE of a key",
    "Max retries exceeded with url: /orders/?name=a {} (Caused by TimeoutError)",
    "cannot read C:\\Users\\{} Berg\\site\\settings.py",
]


def fail(message):
    """With its secrets in its locals as well."""
    local = [message, {"also": message}]
    raise RuntimeError(message) from KeyError(*local)


class Poison:
    """Is pickled well, and cannot be read: as after a release that renamed a class."""

    def __init__(self, word):
        self.word = word

    def __reduce__(self):
        return fail, (self.word,)


def upload(request):
    request.session_key = request.COOKIES["sessionid"]
    body = request.body.decode()
    raise ValueError(f"cannot read {body!r} of {request.get_full_path()!r}")


def refused(request):
    raise PermissionDenied


urlpatterns = [
    path("upload/", upload),
    path("safecache/", include("django_safecache.browser.urls")),
    path("", include("config.urls")),
]


class TestTheCache:
    @pytest.mark.parametrize("kind", CUTS)
    def test_keys_and_values_of_calls_that_fail(
        self, kind, secret, published, settings
    ):
        settings.CACHES = {
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": "127.0.0.1:11211",
                "KEY_PREFIX": secret("prefix"),
                "OPTIONS": HASTY,
            }
        }
        from django.core.cache import cache

        with bound_contextvars(account=secret("account")), outage(kind):
            use(cache, secret)
        assert secret.found_in(published()) == []

    @pytest.mark.parametrize(
        "answer",
        [
            "SERVER_ERROR cannot store '{value}' for {key}/a",
            "CLIENT_ERROR bad key {prefix}:1:{key}/a in line",
            'SERVER_ERROR proxy: password={value} refused for "{key}/a"',
            "ERROR https://ana:{value}@cache.example",
            "VALUE {key}/a 0 3",
            "{value} {key}/a",
            "STAT {value} {key}/a",
        ],
    )
    def test_what_the_server_says_of_them(self, answer, secret, published, make_cache):
        """It speaks of a key that it was asked for, or of a part of one."""
        said = answer.format(
            value=secret("value"), key=secret("key"), prefix=secret("prefix")
        )
        with LocalMemcached() as server:
            server.faults = Faults(answer=said.encode())
            cache = make_cache(
                server.address, params={"KEY_PREFIX": secret("prefix")}, **HASTY
            )
            use(cache, secret)
            cache.disconnect_all()
        assert secret.found_in(published()) == []

    def test_values_that_cannot_be_read(self, secret, published, local, make_cache):
        cache = make_cache(local.address)
        cache.set_many({secret("key"): Poison(secret("attribute")), "b": 1})
        assert cache.get_many([secret("key"), "b"]) == {"b": 1}
        assert secret.found_in(published()) == []

    def test_loaders_that_fail(self, secret, published, make_cache):
        cache = make_cache("127.0.0.1:1")

        def load(keys):
            row = {"card": secret("row")}
            raise LookupError(f"{keys!r} not in {row!r}")

        with site_logging(), bound_contextvars(account=secret("account")):
            try:
                cache.get_many([secret("key")], loader=load)
            except LookupError:
                logging.getLogger("shop").exception("failed %s", secret("argument"))
        assert secret.found_in(published()) == []

    def test_how_servers_are_reached(self, secret, published, local, make_cache):
        context = ssl.create_default_context()
        cache = make_cache(
            local.address,
            tls_context=context,
            key_prefix=secret("prefix"),
            **HASTY,
        )
        use(cache, secret)
        assert secret.found_in(published()) == []


class TestExceptions:
    @pytest.mark.parametrize("message", MESSAGES)
    def test_what_they_say_and_what_was_at_hand(self, message, secret, published):
        said = message.format(secret("message"))
        context = {"account": secret("account"), "password": secret("context")}
        with site_logging(), bound_contextvars(**context):
            try:
                fail(said)
            except RuntimeError:
                logging.getLogger("shop").exception("failed: %s", secret("argument"))
            try:
                fail(said)
            except RuntimeError:
                structlog.get_logger("shop").exception("failed", token=secret("field"))
        assert secret.found_in(published()) == []
        assert Problem.objects.get().exception == "builtins.RuntimeError"

    def test_what_a_request_brought(self, secret, published):
        client = Client(raise_request_exception=False)
        client.cookies["sessionid"] = secret("cookie")
        with site_logging(), bound_contextvars(account=secret("account")):
            response = client.post(
                f"/upload/?name={secret('query')}",
                secret("body"),
                content_type="text/plain",
                headers={"Authorization": f"Bearer {secret('header')}"},
            )
        assert response.status_code == 500
        assert secret.found_in(published()) == []

    @pytest.mark.parametrize("message", MESSAGES)
    def test_what_a_browser_reports(self, message, secret, published, monkeypatch):
        monkeypatch.setattr(views, "_limit", RateLimit())
        monkeypatch.setattr(views, "_errors", BrowserErrors())
        page = f"https://ana:{secret('password')}@testserver/reset/{secret('path')}/"
        script = f"/cart.js?x={secret('query')}#{secret('fragment')}"
        report = {
            "name": f"<{secret('name')}>",
            "message": message.format(secret("message")),
            "source": page + script,
            "stack": f"Error: {secret('stack')}\n"
            f"  at x ({page}?y={secret('query')}:1:1)\n"
            f"  at y (https://ana:{secret('password')}@testserver{script}:1:1)",
            "cookie": secret("cookie"),
        }
        client = Client()
        client.cookies["sessionid"] = secret("cookie")
        with bound_contextvars(account=secret("account")):
            response = client.post(
                f"/safecache/browser-errors/?x={secret('query')}",
                report,
                content_type="application/json",
                headers={
                    "Origin": "http://testserver",
                    "Referer": page,
                    "User-Agent": secret("agent"),
                },
            )
        assert response.status_code == 204
        assert secret.found_in(published()) == []
        assert Problem.objects.get().kind == "browser"

    def test_an_unquoted_value_in_free_text_stays(self, secret, published):
        """What no rule can know: as the README says."""
        with site_logging():
            try:
                fail(f"customer {secret('word')} is late")
            except RuntimeError:
                logging.getLogger("shop").exception("failed")
        places = {place for _, place, _ in secret.found_in(published())}
        assert {"django_safecache_problem", "text", "html"} <= places
        assert "log" not in places


class TestItsOwnTroubles:
    @pytest.mark.django_db(transaction=True)
    def test_what_the_database_says_when_it_fails(
        self, secret, published, ingest, own_log
    ):
        said = (
            f"connection to server at '{secret('host')}' failed: "
            f'FATAL: password authentication failed for user "{secret("user")}" '
            f"password={secret('password')} postgres://ana:{secret('url')}@db/shop"
        )

        def refuse(execute, sql, params, many, context):
            if sql.startswith("INSERT"):
                raise OperationalError(said)
            return execute(sql, params, many, context)

        SafeCache("127.0.0.1:1", {}).get("a")
        with connection.execute_wrapper(refuse):
            assert ingest.flush() is False
        assert any("flush_failed" in line for line in own_log)
        assert secret.found_in(published()) == []

    def test_what_the_mail_server_says_when_it_refuses(self, secret, settings, ingest):
        SafeCache("127.0.0.1:1", {}).get("a")
        ingest.flush()
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": [OPS], "FROM": "a@example.com"}}
        with MailServer() as server:
            server.refuse[OPS] = (
                f"550 5.7.8 refused: password={secret('password')} "
                f"Authorization: Basic {secret('header')}"
            )
            for name, value in mail_settings(SMTP, port=server.port).items():
                setattr(settings, name, value)
            period = Period.last(hours=1)
            close(Problem.objects.get().last_seen.date(), period.end)
        assert "550" in DigestDelivery.objects.get().error
        assert secret.found_in({**tables(), **pages()}) == []


def test_the_search_finds_what_is_there(secret):
    word = secret("word")
    assert secret.found_in({"place": f"a {word.upper()} b"})
    assert pickle.dumps(Poison(word))

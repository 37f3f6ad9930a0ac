from __future__ import annotations

import asyncio
import json

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, RequestFactory
from django.urls import include, path, reverse
from structlog.contextvars import bound_contextvars

from django_safecache.browser import views
from django_safecache.browser.rate_limit import RateLimit
from django_safecache.digest.contents import compose
from django_safecache.digest.rendering import render
from django_safecache.models import Problem, ProblemFacet
from django_safecache.recording.browser_errors import BrowserErrors

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [
    path("safecache/", include("django_safecache.browser.urls")),
    path("", include("config.urls")),
]

URL = "/safecache/browser-errors/"
SAME_ORIGIN = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
REPORT = {
    "name": "TypeError",
    "message": "cart 17 is null",
    "source": "https://testserver/cart.js",
    "stack": "TypeError: x\n  at total (https://testserver/cart.js:1:2)",
}


def browser_errors(**changes):
    return {"FLUSH": "manual", "BROWSER_ERRORS": {"ENABLED": True, **changes}}


@pytest.fixture(autouse=True)
def _site(settings, monkeypatch):
    settings.SAFECACHE = browser_errors()
    settings.DEBUG = False
    monkeypatch.setattr(views, "_limit", RateLimit())
    monkeypatch.setattr(views, "_errors", BrowserErrors())


@pytest.fixture(autouse=True)
def recorder():
    recorder = apps.get_app_config("django_safecache").ingest.recorder
    recorder.reset()
    yield recorder
    recorder.reset()


def send(body=REPORT, *, headers=SAME_ORIGIN, client=None, **options):
    client = client or Client(enforce_csrf_checks=True, raise_request_exception=False)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    options = {"content_type": "application/json", **options}
    return client.post(URL, data, headers=headers, **options)


class Stream:
    """A body that is not there yet; keeps how much of it was asked for."""

    def __init__(self, read):
        self.asked = []
        self._read = read

    def read(self, size):
        self.asked.append(size)
        return self._read(size)


def answer(read, **meta):
    """The status of what comes by `read`, and how much of it was asked for."""
    request = RequestFactory().post(
        URL, b"{}", content_type="application/json", headers=SAME_ORIGIN
    )
    request.META.update(meta)
    request._stream = stream = Stream(read)
    return views.report(request).status_code, stream.asked


def gone(size):
    raise ConnectionResetError


def counted(recorder):
    return sum(totals.count for totals in recorder.snapshot().occurrences)


def store():
    assert apps.get_app_config("django_safecache").ingest.flush()


class TestSwitch:
    def test_its_address_can_be_reversed(self):
        assert reverse("django_safecache:browser_errors") == URL

    def test_it_is_off_until_a_site_turns_it_on(self, settings, recorder):
        settings.SAFECACHE = {"FLUSH": "manual"}
        assert send().status_code == 404
        assert Client().get(URL).status_code == 404
        assert counted(recorder) == 0


class TestCounting:
    def test_a_report_is_counted_and_answered_with_nothing(self, recorder):
        response = send()
        assert (response.status_code, response.content) == (204, b"")
        assert counted(recorder) == 1

    def test_it_sets_no_cookie_and_asks_for_no_session(self, settings):
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "django.middleware.csrf.CsrfViewMiddleware",
        ]
        response = send()
        assert response.status_code == 204
        assert not response.cookies
        assert not response.has_header("Vary")

    def test_one_error_on_many_accounts_is_one_problem(self):
        for number in range(20):
            with bound_contextvars(account=f"customer-{number}"):
                send({**REPORT, "message": f"cart {number} is null"})
        store()
        problem = Problem.objects.get()
        assert (problem.kind, problem.exception) == ("browser", "TypeError")
        assert problem.message == "cart <n> is null"
        accounts = ProblemFacet.objects.filter(facet="account")
        assert accounts.count() == 20
        assert not accounts.filter(value__contains="customer").exists()
        sites = ProblemFacet.objects.filter(facet="call_site")
        assert [facet.value for facet in sites] == ["/cart.js:total"]
        mail = render(compose(problem.last_seen.date()))
        assert mail.subject.endswith("1 new, 20 browser errors")
        assert "* 20 x browser TypeError\n  cart <n> is null\n" in mail.text

    def test_it_works_in_an_async_site(self, recorder):
        async def visit():
            return await AsyncClient().post(
                URL,
                json.dumps(REPORT),
                content_type="application/json",
                headers=SAME_ORIGIN,
            )

        assert asyncio.run(visit()).status_code == 204
        assert counted(recorder) == 1

    def test_where_counting_is_off_it_is_taken_and_dropped(self, monkeypatch):
        monkeypatch.setattr(views.DigestHandler, "recorder", None)
        assert send().status_code == 204


class TestOrigin:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://testserver"},
            {"Origin": "https://TESTSERVER"},
            {"Sec-Fetch-Site": "same-origin"},
            SAME_ORIGIN,
        ],
    )
    def test_pages_of_this_host_may_report(self, headers):
        assert send(headers=headers).status_code == 204

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "null"},
            {"Origin": ""},
            {"Origin": "http://"},
            {"Origin": "http://["},
            {"Origin": "http://testserver:8000"},
            {"Origin": "http://testserver.evil.example"},
            {"Origin": "http://evil.example/testserver"},
            {"Origin": "http://testserver@evil.example"},
            {"Origin": "ftp://testserver"},
            {"Origin": "testserver"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "none"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
            {"Referer": "http://testserver/"},
        ],
    )
    def test_others_may_not(self, headers, recorder):
        assert send(headers=headers).status_code == 403
        assert counted(recorder) == 0

    def test_a_host_that_is_not_the_sites_is_refused(self, recorder):
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert send(headers=headers).status_code == 400
        assert counted(recorder) == 0

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "",
        ],
    )
    def test_what_a_form_can_send_is_refused(self, content_type, recorder):
        assert send(content_type=content_type).status_code == 415
        assert counted(recorder) == 0

    @pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete"])
    def test_only_post_is_answered(self, method):
        response = getattr(Client(), method)(URL, headers=SAME_ORIGIN)
        assert response.status_code == 405
        assert response["Allow"] == "POST"

    def test_nobody_else_is_told_that_they_may(self):
        response = Client().options(URL, headers={"Origin": "http://evil.example"})
        assert response.status_code == 405
        assert not any("access-control" in name.lower() for name in response.headers)


class TestSize:
    def test_a_body_of_8_kb_is_read(self):
        body = json.dumps(REPORT).encode()
        assert send(body.ljust(8192)).status_code == 204

    def test_a_larger_one_is_refused(self, recorder):
        body = json.dumps(REPORT).encode().ljust(8193)
        assert send(body).status_code == 413
        assert counted(recorder) == 0

    @pytest.mark.parametrize("length", ["8193", "9" * 30, "-1", "ten", "1e3"])
    def test_what_says_that_it_is_larger_is_not_read(self, length):
        assert answer(bytes, CONTENT_LENGTH=length) == (413, [])

    @pytest.mark.parametrize("length", ["", "0", "8192"])
    def test_whatever_it_says_no_more_than_the_limit_is_read(self, length):
        """A server of ASGI hands over what comes in chunks, without a length."""
        assert answer(bytes, CONTENT_LENGTH=length) == (413, [8193])

    def test_a_client_that_goes_away_is_nobodys_problem(self):
        assert answer(gone) == (400, [8193])

    @pytest.mark.parametrize(
        "body", [b" ", b"\xff", b"[" * 8000, b'{"message": 1}', b"null", b"\x00"]
    )
    def test_what_is_no_report_is_refused(self, body, recorder):
        assert send(body).status_code == 400
        assert counted(recorder) == 0


class TestRate:
    def test_over_the_limit_is_dropped_and_counted_as_that(self, settings, recorder):
        settings.SAFECACHE = browser_errors(PER_CLIENT=3)
        statuses = [send().status_code for _ in range(5)]
        assert statuses == [204, 204, 204, 429, 429]
        assert counted(recorder) == 3
        assert recorder.snapshot().dropped == 2

    def test_it_is_said_when_to_try_again(self, settings):
        settings.SAFECACHE = browser_errors(PER_CLIENT=1)
        send()
        assert send()["Retry-After"] == "60"

    def test_who_is_behind_a_proxy_cannot_say_to_be_somebody_else(self, settings):
        settings.SAFECACHE = browser_errors(PER_CLIENT=1)
        statuses = [
            send(headers={**SAME_ORIGIN, "X-Forwarded-For": f"10.0.0.{n}"}).status_code
            for n in range(3)
        ]
        assert statuses == [204, 429, 429]

    def test_all_clients_together_are_limited(self, settings):
        settings.SAFECACHE = browser_errors(PER_CLIENT=3, PER_PROCESS=4)
        statuses = [send(REMOTE_ADDR=f"10.0.0.{n // 3}").status_code for n in range(9)]
        assert statuses.count(204) == 4


HOSTILE = "<script>alert(1)</script>\u202e\x00\x1b[31m\ud800"


class TestHostility:
    def test_it_is_shown_as_text(self):
        report = {
            "name": HOSTILE,
            "message": HOSTILE,
            "source": f"https://testserver/{HOSTILE}.js",
            "stack": f"{HOSTILE}@https://testserver/<b>.js:1:1",
        }
        assert send(report).status_code == 204
        store()
        problem = Problem.objects.get()
        assert problem.exception == "Error"
        client = Client()
        client.force_login(User.objects.create_superuser("operator"))
        mail = render(compose(problem.last_seen.date()))
        shown = [
            mail.html,
            *[
                client.get(reverse(f"admin:django_safecache_{name}", args=args)).text
                for name, args in [
                    ("dashboard_changelist", []),
                    ("problem_changelist", []),
                    ("problem_change", [problem.pk]),
                ]
            ],
        ]
        for page in shown:
            assert "&lt;script&gt;alert" in page
            assert "<script>alert" not in page
            assert "<b>" not in page.replace("<b>operator</b>", "")
            assert not {"\u202e", "\x00", "\x1b", "\ud800"} & set(page)
        assert not {"\u202e", "\x00", "\x1b", "\ud800"} & set(mail.text + mail.subject)

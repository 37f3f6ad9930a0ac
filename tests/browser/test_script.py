"""`browser_errors.js` in a real browser, under a strict Content-Security-Policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.staticfiles import finders
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from real_chromium import chromium_or_skip, visit
from structlog.contextvars import bound_contextvars

from django_safecache.browser import views
from django_safecache.browser.rate_limit import RateLimit
from django_safecache.models import Problem, ProblemCount, ProblemFacet
from django_safecache.recording.browser_errors import BrowserErrors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

NAME = "django_safecache/browser_errors.js"
URL = "/safecache/browser-errors/"
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"

# What goes wrong on each page, in a script of its own.
SCRIPTS = {
    "errors": """
        function total(cart) { return cart.items.length; }
        setTimeout(function () { total(null); });
        setTimeout(function () { total(null); });
        setTimeout(function () { throw new RangeError("password=zqpasswordqz"); });
        setTimeout(function () { throw "a text"; });
        Promise.reject(new SyntaxError("rejected 17 of 'zqvalueqz'"));
        Promise.reject("only a text");
        Promise.reject(undefined);
        Promise.reject({ get name() { throw new Error("never reported"); } });
        Promise.reject(Object.create(null));
        fetch("/refused/").then(function (response) {
          if (!response.ok) throw new TypeError("refused with " + response.status);
        });
    """,
    "many": """
        "abcdefghijklmnopqrstuvwxyz".split("").forEach(function (letter) {
          setTimeout(function () { throw new Error("many " + letter); });
        });
    """,
    "huge": """
        throw new Error("\\u6f22 ".repeat(1000000));
    """,
    "elsewhere": """
        window.dispatchEvent(new ErrorEvent("error", { message: "Script error." }));
    """,
}


def page(request, name):
    """A page that loads the script as the README says, then fails."""
    url = URL if name != "broken" else "/refused/"
    script = "many" if name == "broken" else name
    return HttpResponse(
        f"""<!doctype html><title>{name}</title>
        <script src="/script.js" data-url="{url}"></script>
        <script src="/broken/{script}.js?token=zqtokenqz"></script>""",
        headers={"Content-Security-Policy": POLICY},
    )


def broken(request, name):
    return HttpResponse(SCRIPTS[name], content_type="text/javascript")


def script(request):
    return HttpResponse(source(), content_type="text/javascript")


@csrf_exempt
def on_account(request):
    """The server of the tests has its middleware from before a test can name one."""
    with bound_contextvars(account="acme"):
        return views.report(request)


refusals = []


def refused(request):
    refusals.append(request.method)
    return HttpResponse(status=500)


urlpatterns = [
    path("page/<name>/", page),
    path("broken/<name>.js", broken),
    path("script.js", script),
    path("refused/", refused),
    path(URL.lstrip("/"), on_account),
]


def source():
    return Path(finders.find(NAME)).read_bytes()


@pytest.fixture(autouse=True)
def _site(settings, monkeypatch):
    settings.SAFECACHE = {"FLUSH": "manual", "BROWSER_ERRORS": {"ENABLED": True}}
    monkeypatch.setattr(views, "_limit", RateLimit())
    monkeypatch.setattr(views, "_errors", BrowserErrors())
    refusals.clear()


@pytest.fixture
def found(live_server, tmp_path):
    """What was counted of a visit: (class, message) to number; and the console."""
    program = chromium_or_skip()
    ingest = apps.get_app_config("django_safecache").ingest
    ingest.recorder.reset()

    def find(name):
        dom, console = visit(program, f"{live_server.url}/page/{name}/", str(tmp_path))
        assert f"<title>{name}</title>" in dom
        assert ingest.flush()
        counts = ProblemCount.objects.values_list(
            "problem__exception", "problem__message", "count"
        )
        return {(name, message): count for name, message, count in counts}, console

    yield find
    ingest.recorder.reset()


class TestScript:
    def test_it_is_small(self):
        assert len(source()) < 2000

    def test_errors_and_rejections_are_reported_each_once(self, found):
        counts, console = found("errors")
        assert counts == {
            (
                "TypeError",
                "Cannot read properties of null (reading <text>)",
            ): 1,
            ("RangeError", "password=<secret>"): 1,
            ("Error", "Uncaught a text"): 1,
            ("SyntaxError", "rejected <n> of <text>"): 1,
            ("Error", "only a text"): 1,
            ("Error", "undefined"): 1,
            ("TypeError", "refused with <n>"): 1,
        }
        assert not any("Content Security Policy" in line for line in console)
        sites = ProblemFacet.objects.filter(
            facet="call_site", problem__message__contains="null"
        )
        assert [site.value for site in sites] == ["/broken/errors.js:total"]
        accounts = ProblemFacet.objects.filter(facet="account")
        assert {len(account.value) for account in accounts} == {32}
        assert set(Problem.objects.values_list("kind", flat=True)) == {"browser"}

    def test_a_page_reports_ten_errors_at_most(self, found):
        counts, _ = found("many")
        assert sorted(message for _, message in counts) == [
            f"many {letter}" for letter in "abcdefghij"
        ]

    def test_a_huge_error_is_cut_before_it_is_sent(self, found):
        counts, _ = found("huge")
        ((_, message),) = counts
        assert message.startswith("漢 漢 漢")

    def test_of_scripts_from_elsewhere_nothing_can_be_said(self, found):
        counts, _ = found("elsewhere")
        assert counts == {}

    def test_a_report_that_fails_is_not_reported(self, found):
        counts, _ = found("broken")
        assert counts == {}
        assert refusals == ["POST"] * 10

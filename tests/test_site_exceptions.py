"""Exceptions of real views, from the request to the mail: one problem, all accounts."""

from __future__ import annotations

import asyncio
import logging

import pytest
import structlog
from django.apps import apps
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from structlog.contextvars import bound_contextvars

from django_safecache.digest.contents import compose
from django_safecache.digest.rendering import render
from django_safecache.models import Problem
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.structlog_processor import count_exceptions
from django_safecache.reports import Period, problems

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


class OutOfStockError(Exception):
    pass


def account_middleware(get_response):
    """As in the README."""

    def middleware(request):
        with bound_contextvars(account=request.headers["X-Account"]):
            return get_response(request)

    return middleware


def order(request, number):
    host = f"10.0.0.{number % 250}"
    raise OutOfStockError(
        f"order {number} of {request.headers['X-Account']!r} at {host}:5432 is late"
    )


async def async_order(request, number):
    await asyncio.sleep(0)
    return order(request, number)


def logged_order(request, number):
    """Tells of it at two levels, before Django does."""
    try:
        order(request, number)
    except OutOfStockError:
        structlog.get_logger("shop").exception("order_failed", number=number)
        logging.getLogger("shop").exception("order %s failed", number)
        raise


def answered(request, status):
    errors = {
        400: SuspiciousOperation("no"),
        403: PermissionDenied("no"),
        404: Http404("no"),
    }
    if status in errors:
        raise errors[status]
    logging.getLogger("shop").error("cannot ship order %s", 17)
    return HttpResponse(status=status)


urlpatterns = [
    path("order/<int:number>/", order),
    path("async/<int:number>/", async_order),
    path("logged/<int:number>/", logged_order),
    path("answered/<int:status>/", answered),
]


@pytest.fixture(autouse=True)
def _site(settings):
    """Both ways to count, as most sites with structlog will have them."""
    settings.DEBUG = False
    settings.MIDDLEWARE = [f"{__name__}.account_middleware"]
    handler = DigestHandler()
    logging.getLogger().addHandler(handler)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            count_exceptions,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    yield
    structlog.reset_defaults()
    logging.getLogger().removeHandler(handler)


@pytest.fixture(autouse=True)
def ingest():
    ingest = apps.get_app_config("django_safecache").ingest
    ingest.recorder.reset()
    yield ingest
    ingest.recorder.reset()


@pytest.fixture
def get():
    client = Client(raise_request_exception=False)
    return lambda path, account: client.get(path, headers={"x-account": account})


@pytest.fixture
def found(ingest):
    """Store what was counted; the rows that the reports have of it."""

    def store():
        assert ingest.flush()
        return problems(Period.last(hours=24))

    return store


def mail():
    return render(compose(Problem.objects.latest("last_seen").last_seen.date())).text


ORDER = "order <n> of <text> at <host> is late"


class TestOneProblem:
    @pytest.mark.parametrize("view", ["order", "logged"])
    def test_the_same_exception_on_200_accounts_is_one_line(self, get, found, view):
        for number in range(1000, 1200):
            account = f"customer-{number}"
            assert get(f"/{view}/{number}/", account).status_code == 500
        (row,) = found()
        assert (row.kind, row.message) == ("application", ORDER)
        assert row.exception == f"{__name__}.OutOfStockError"
        assert row.call_sites == (f"{__name__}:order",)
        assert (row.count, row.accounts) == (200, 200)
        assert f"* 200 x application {__name__}.OutOfStockError\n  {ORDER}\n" in mail()
        assert "\n  200 accounts\n" in mail()
        assert "customer-" not in mail()

    def test_one_account_that_fails_often_is_one_account(self, get, found):
        for number in range(60):
            get(f"/order/{number}/", "acme")
        (row,) = found()
        assert (row.count, row.accounts) == (60, 1)

    def test_coroutines_are_counted_with_their_accounts(self, found):
        client = AsyncClient(raise_request_exception=False)

        async def visit():
            return await asyncio.gather(
                *[
                    client.get(f"/async/{number}/", headers={"x-account": f"c{number}"})
                    for number in range(20)
                ]
            )

        responses = asyncio.run(visit())
        assert {response.status_code for response in responses} == {500}
        (row,) = found()
        assert (row.count, row.accounts) == (20, 20)
        assert row.call_sites == (f"{__name__}:order",)

    def test_a_task_outside_any_request_is_counted_when_it_is_logged(self, found):
        """As Celery does: it hands over a tuple."""
        for number in range(3):
            with bound_contextvars(account=f"c{number}"):
                try:
                    raise OutOfStockError(f"order {number} is late")
                except OutOfStockError as error:
                    exc_info = (type(error), error, error.__traceback__)
                    logging.getLogger("celery.app.trace").error(
                        "Task raised unexpected: %r", error, exc_info=exc_info
                    )
        (row,) = found()
        assert (row.message, row.count, row.accounts) == ("order <n> is late", 3, 3)


class TestNoProblem:
    @pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 503])
    def test_an_answer_is_no_exception(self, get, found, status):
        assert get(f"/answered/{status}/", "acme").status_code == status
        assert found() == []

    def test_a_host_that_is_not_allowed_is_no_exception_of_the_site(
        self, found, settings
    ):
        settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
        client = Client(raise_request_exception=False)
        response = client.get("/answered/200/", headers={"host": "evil.example"})
        assert response.status_code == 400
        assert found() == []

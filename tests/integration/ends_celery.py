"""A Celery application with the defaults, but that its broker is a folder."""

from __future__ import annotations

import os
from pathlib import Path

import django
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

django.setup()

from ends_site import count

app = Celery("ends", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": os.environ["ENDS_QUEUE"],
        "data_folder_out": os.environ["ENDS_QUEUE"],
        "control_folder": os.environ["ENDS_QUEUE"] + "/control",
    },
)


class ExpectedError(Exception):
    pass


@app.task
def hit(file: str) -> None:
    count()
    done(file)


@app.task
def fail(file: str) -> None:
    done(file)
    raise LookupError("nobody catches it")


@app.task
def tell(file: str) -> None:
    done(file)
    try:
        raise LookupError("the task tells of it")
    except LookupError:
        get_task_logger(__name__).exception("failed")


@app.task(throws=ExpectedError)
def fail_as_expected(file: str) -> None:
    done(file)
    raise ExpectedError


@app.task(bind=True, default_retry_delay=0, max_retries=1)
def fail_once(self, file: str) -> None:
    if self.request.retries == 0:
        raise self.retry(exc=LookupError("it will do"))
    done(file)


@app.task
def ignore(file: str) -> None:
    done(file)
    raise Ignore


@app.task
def reject(file: str) -> None:
    done(file)
    raise Reject("no", requeue=False)


def done(file: str) -> None:
    """Say so: there is no backend of results."""
    Path(file).touch()

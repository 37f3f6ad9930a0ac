"""A Celery application whose broker is a folder."""

from __future__ import annotations

import os

import django
from celery import Celery

django.setup()

from ends_site import count

app = Celery("ends", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": os.environ["ENDS_QUEUE"],
        "data_folder_out": os.environ["ENDS_QUEUE"],
        "control_folder": os.environ["ENDS_QUEUE"] + "/control",
    },
    worker_hijack_root_logger=False,
)


@app.task
def hit(file: str) -> None:
    count()
    # Says that it has done so: there is no backend of results.
    with open(file, "w"):
        pass

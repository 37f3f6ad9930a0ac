"""Jobs carried out: round by round, all servers at once, within one deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence

from django_safecache.exceptions import DeadlineError, ProtocolError
from django_safecache.memcached import protocol
from django_safecache.memcached.command_job import CommandJob
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.exchange import converse
from django_safecache.memcached.failures import TRANSPORT_ERRORS
from django_safecache.memcached.job import Job
from django_safecache.memcached.options import Options
from django_safecache.memcached.pool import RECHECK
from django_safecache.memcached.unwritten import Due, Unwritten


def carry_out(jobs: Sequence[Job], options: Options, started: float) -> None:
    """Ask until every job has its answers, or has given up. Raises nothing of the
    transport; whatever interrupts it leaves no connection with an answer under way."""
    deadline = started + options.deadline
    try:
        _make_good(jobs, options, deadline)
        _ask(jobs, deadline)
    finally:  # what was interrupted is lost as well
        for job in jobs:
            if unwritten := job.unwritten():
                job.server.unwritten.add(unwritten, sent=job.bytes_sent > 0)


def _make_good(jobs: Sequence[Job], options: Options, deadline: float) -> None:
    """Delete what was written in vain before, on the servers of `jobs`.

    A server that does not confirm it is not asked: what it has may be old.
    """
    deletes = []
    for job in jobs:
        if not job.server.unwritten.is_due or job.exchange is not None:
            continue
        if job.server.breaker.is_left_alone:
            job.skip()
        elif due := _claimed(job.server.unwritten, deadline):
            lines = [(key, protocol.delete_line(key)) for key in due]
            delete = CommandJob(job.server, options, "delete", lines)
            deletes.append((job, due, delete))
        elif job.server.unwritten.is_due:
            job.give_up(DeadlineError("another thread is deleting what was lost"))
    _ask([delete for _, _, delete in deletes], deadline)
    for job, due, delete in deletes:
        confirmed = [key for key in due if key in delete.statuses]
        job.server.unwritten.deleted(due, confirmed, refused=bool(delete.refusals))
        believed = len(confirmed) == len(due) or not job.server.unwritten.is_due
        job.add_to_its_own(delete, believed=believed)


def _claimed(unwritten: Unwritten, deadline: float) -> dict[bytes, Due]:
    """What there is to delete; waits, until `deadline`, for a thread that is at it."""
    while (due := unwritten.claim(deadline)) is None:
        if not unwritten.is_due or time.monotonic() >= deadline:
            return {}
        time.sleep(RECHECK)
    return due


def _ask(jobs: Sequence[Job], deadline: float) -> None:
    while asking := [job for job in jobs if job.wants_a_round()]:
        _round(asking, deadline)


def _round(jobs: Sequence[Job], deadline: float) -> None:
    try:
        _start_all(jobs, deadline)
        converse([job.exchange for job in jobs if job.exchange], deadline)
        for job in jobs:
            job.end_round()
    finally:
        # Whatever interrupted this - a worker's abort, KeyboardInterrupt - no
        # connection with an answer under way may be used again.
        for job in jobs:
            job.abandon_round()


def _start_all(jobs: Sequence[Job], deadline: float) -> None:
    """Send every server its first window; those first that need no connecting."""
    to_connect = []
    for job in jobs:
        if job.exchange is not None:
            continue
        if not job.server.breaker.allows():
            job.skip()
        elif connection := job.server.pool.take_idle(time.monotonic()):
            job.start(connection)
        else:
            to_connect.append(job)
    for job in to_connect:
        try:
            job.start(_connect(job, deadline))
        except TRANSPORT_ERRORS as error:
            job.give_up(error)


def _connect(job: Job, deadline: float) -> Connection:
    connection = job.server.pool.take(deadline)
    try:
        if not connection.opened:
            connection.open(deadline)
        if job.doubts_server:
            _prove_alive(connection, job.options, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


def _prove_alive(connection: Connection, options: Options, deadline: float) -> None:
    """Raise unless the server answers the smallest of commands."""
    until = min(time.monotonic() + options.timeout, deadline)
    reply = connection.ask(protocol.VERSION, max(until - time.monotonic(), 0.0))
    while not reply.endswith(b"\r\n") and len(reply) <= protocol.MAX_LINE:
        if not connection.wait(False, max(until - time.monotonic(), 0.0)):
            raise TimeoutError("timed out")
        reply += connection.receive()
    if protocol.sole_status("version", reply) is None:
        raise ProtocolError("no answer to 'version'")
    connection.in_flight = False

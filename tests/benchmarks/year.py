"""How much a year of counts takes on PostgreSQL, and how long its questions take.

    python tests/benchmarks/year.py [--json FILE] [--live HOURS]

starts a PostgreSQL of its own and fills it. Every query that the dashboard, the mail
and the pages of problems make is timed, and the size of every table is taken. Then
`--live` hours are counted and rolled up every five minutes, which is timed too, and
the sizes are taken again: the first are of tables that were filled in one go.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(TESTS),
    str(TESTS / "benchmarks"),
    str(TESTS.parent / "example_project"),
]

import django
import postgresql
import safecache_test_settings
from django.conf import settings

MUST_BYTES = 100_000_000
MUST_SECONDS = 0.05
ROUNDS = 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--live", metavar="HOURS", type=int, default=3)
    arguments = parser.parse_args()
    with postgresql.running() as database:
        names = {name for name in dir(safecache_test_settings) if name.isupper()}
        settings.configure(
            **{name: getattr(safecache_test_settings, name) for name in names}
            | {"DATABASES": {"default": database}}
        )
        django.setup()
        report = measure(arguments.live)
    for line in table(report):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["passed"] else 1


def measure(live_hours: int) -> dict[str, Any]:
    import year_of_data
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    now = datetime.now(timezone.utc)
    year_of_data.fill(now)
    report: dict[str, Any] = {"filled": sizes(), "questions": ask(now)}
    if live_hours:
        report["rollups"] = live(now, live_hours)
        report["after_live"] = sizes()
    connection.close()
    largest = max(
        sum(report[name].values())
        for name in ("filled", "after_live")
        if name in report
    )
    slowest = max(each["slowest_query"] for each in report["questions"])
    report |= {"bytes": largest, "slowest_query": slowest}
    report["passed"] = largest < MUST_BYTES and slowest < MUST_SECONDS
    return report


def sizes() -> dict[str, int]:
    """Bytes of each table with its indexes and what is stored out of line."""
    from django.apps import apps
    from django.db import connection

    models = apps.get_app_config("django_safecache").get_models()
    tables = [model._meta.db_table for model in models if model._meta.managed]
    with connection.cursor() as cursor:
        found = {}
        for name in tables:
            cursor.execute("SELECT pg_total_relation_size(%s)", [name])
            found[name.removeprefix("django_safecache_")] = cursor.fetchone()[0]
    return found


def questions(now: datetime) -> Iterator[tuple[str, Callable[[], object]]]:
    from django.contrib.admin import site
    from django.test import override_settings

    from django_safecache import dashboard, reports
    from django_safecache.admin import ProblemAdmin
    from django_safecache.digest.contents import compose
    from django_safecache.models import Problem

    def page(**question: str) -> object:
        return dashboard.context(dashboard.select(question))

    def mail(day: datetime, zone: str) -> object:
        with override_settings(SAFECACHE={"DIGEST": {"TIME_ZONE": zone}}):
            return compose(day.date())

    for name, choice in dashboard.PERIODS.items():
        whole = reports.Period.last(hours=choice.hours, whole=choice.whole)
        yield f"dashboard, {name}", lambda name=name: page(period=name)
        yield (
            f"dashboard, {name}, one server",
            lambda name=name: page(
                period=name, alias="default", server="10.0.0.1:11211"
            ),
        )
        yield f"by key group, {name}", lambda it=whole: reports.by_key_group(it)
        yield f"compared with before, {name}", lambda it=whole: reports.compare(it)
    yesterday, long_ago = now - timedelta(days=1), now - timedelta(days=60)
    yield "mail of yesterday", lambda: mail(yesterday, "UTC")
    yield "mail of yesterday, India", lambda: mail(yesterday, "Asia/Kolkata")
    yield "mail of 60 days ago", lambda: mail(long_ago, "UTC")
    admin = ProblemAdmin(Problem, site)
    problem = Problem.objects.get(pk=30)
    yield "list of problems", lambda: list(Problem.objects.order_by("-last_seen")[:100])
    yield (
        "page of a problem",
        lambda: (
            admin.accounts(problem),
            admin.call_sites(problem),
            admin.samples(problem),
        ),
    )


def ask(now: datetime) -> list[dict[str, Any]]:
    """The median seconds of each question, and of its slowest query."""
    from django.db import connection

    answers = []
    for name, question in questions(now):
        taken: list[list[float]] = []
        wholes = []

        def timed(execute: Any, *arguments: Any, taken: Any = taken) -> Any:
            started = time.perf_counter()
            try:
                return execute(*arguments)
            finally:
                taken[-1].append(time.perf_counter() - started)

        with connection.execute_wrapper(timed):
            for _ in range(ROUNDS + 1):
                taken.append([])
                started = time.perf_counter()
                question()
                wholes.append(time.perf_counter() - started)
        # The first fills PostgreSQL's cache, as whoever looked before did.
        queries = [statistics.median(each) for each in zip(*taken[1:], strict=True)]
        answers.append(
            {
                "question": name,
                "seconds": statistics.median(wholes[1:]),
                "queries": len(queries),
                "slowest_query": max(queries),
            }
        )
    return answers


def live(now: datetime, hours: int) -> dict[str, float]:
    """Go on for so long; seconds of a rollup, the median and the longest."""
    import year_of_data
    from django.db import connection

    from django_safecache.conf import get_settings
    from django_safecache.storage import roll_up

    bucket = timedelta(minutes=5)
    retention = get_settings().retention_days
    seconds = []
    for number in range(1, hours * 12 + 1):
        moment = now + number * bucket
        year_of_data.store_now(moment)
        started = time.perf_counter()
        roll_up(moment, using="default", retention=retention)
        seconds.append(time.perf_counter() - started)
        if number % 12 == 0:
            # As autovacuum would, which sleeps for a minute between its rounds.
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
    return {"median": statistics.median(seconds), "longest": max(seconds)}


def table(report: Mapping[str, Any]) -> Iterator[str]:
    """Markdown."""
    yield "| table | filled | after going on |"
    yield "|---|---|---|"
    after = report.get("after_live", {})
    for name, size in report["filled"].items():
        yield f"| {name} | {size / 1e6:.1f} MB | {after.get(name, 0) / 1e6:.1f} MB |"
    yield (
        f"| all | {sum(report['filled'].values()) / 1e6:.1f} MB "
        f"| {sum(after.values()) / 1e6:.1f} MB |"
    )
    yield ""
    yield "| question | all of it | queries | the slowest query |"
    yield "|---|---|---|---|"
    for row in report["questions"]:
        yield (
            f"| {row['question']} | {row['seconds'] * 1000:.1f} ms | {row['queries']} "
            f"| {row['slowest_query'] * 1000:.1f} ms |"
        )
    yield ""
    if "rollups" in report:
        rollups = report["rollups"]
        yield (
            f"A rollup of five minutes of ten processes: {rollups['median']:.2f} s, "
            f"the longest {rollups['longest']:.2f} s."
        )
    yield (
        f"{report['bytes'] / 1e6:.1f} MB, must be under {MUST_BYTES / 1e6:.0f}; "
        f"slowest query {report['slowest_query'] * 1000:.1f} ms, must be under "
        f"{MUST_SECONDS * 1000:.0f}: {'passed' if report['passed'] else 'FAILED'}"
    )


if __name__ == "__main__":
    sys.exit(main())

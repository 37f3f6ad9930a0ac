"""A run as a table for people. Timings are told here, and decide nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from load import Page
from verdicts import Run, Span, Staleness, Verdict

DEADLINE = 1.0
"""Of a cache call, in seconds: the backend's default, which Campfire has."""
HEAD = (
    f"{'phase':<26}{'pages':>6}{'not 200':>8}{'p50 ms':>8}{'p95':>7}{'p99':>7}"
    f"{'max':>7}{'cache99':>8}{'cached':>8}{'edits':>6}{'lost':>5}{'stale':>6}"
    f"{'for s':>7}  failures"
)


def lines(run: Run, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield HEAD
    for index, span in enumerate(run.spans):
        yield _row(run, index, span)
    yield ""
    yield "p50 to max: of whole pages; cache99: p99 of cache calls, rounded up"
    yield "cached: part of the fragments that the cache gave"
    yield (
        "lost: edits whose cache write had no answer; stale: edits of this phase that "
        "a later page did not show, and for how long"
    )
    yield f"p99 under {2 * DEADLINE:.0f} s, twice the deadline: {_p99_verdict(run)}"
    yield ""
    for before, after in zip(run.before, run.after, strict=False):
        yield (
            f"pid {before.pid}: threads {before.threads} -> {after.threads}, sockets "
            f"{before.sockets} -> {after.sockets}, to the cache "
            f"{before.cache_sockets} -> {after.cache_sockets}, memory {before.rss} -> "
            f"{after.rss} MB"
        )
    yield ""
    for verdict in verdicts:
        yield f"{'held' if verdict.held else 'NOT HELD':<9} {verdict.name}"
        yield f"{'':<9} {verdict.detail}"


def percentile(durations: Sequence[float], part: float) -> float:
    """The least duration that `part` of all do not exceed; nan of none."""
    ordered = sorted(durations)
    return ordered[math.ceil(part * len(ordered)) - 1] if ordered else math.nan


def _row(run: Run, index: int, span: Span) -> str:
    pages = [page for page in run.pages if run.span_of(page.began) == index]
    edits = [edit for edit in run.edits if run.span_of(edit.began) == index]
    stale = [each for each in run.staleness if run.span_of(each.edit.began) == index]
    shown = sum(page.from_cache + page.from_database for page in pages)
    cached = sum(page.from_cache for page in pages) / shown if shown else math.nan
    p50, p95, p99, most = _milliseconds(pages)
    return (
        f"{span.name:<26}{len(pages):>6}{sum(p.status != 200 for p in pages):>8}"
        f"{p50:>8.0f}{p95:>7.0f}{p99:>7.0f}{most:>7.0f}{_cache(span):>8}{cached:>8.0%}"
        f"{len(edits):>6}{sum(not edit.answered for edit in edits):>5}"
        f"{len(stale):>6}{_longest(stale):>7}  {_failures(span)}"
    )


def _milliseconds(pages: Sequence[Page]) -> Iterator[float]:
    durations = [page.duration * 1000 for page in pages]
    return (percentile(durations, part) for part in (0.5, 0.95, 0.99, 1.0))


def _cache(span: Span) -> str:
    return "" if span.cache_p99 is None else f"{span.cache_p99 * 1000:.0f}"


def _longest(stale: Sequence[Staleness]) -> str:
    return f"{max(each.seconds for each in stale):.1f}" if stale else ""


def _failures(span: Span) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in span.failures.items())


def _p99_verdict(run: Run) -> str:
    over = []
    for index, span in enumerate(run.spans):
        pages = [page for page in run.pages if run.span_of(page.began) == index]
        p99 = percentile([page.duration for page in pages], 0.99)
        if p99 >= 2 * DEADLINE:
            over.append(f"{span.name} {p99:.2f} s")
    healthy = percentile([p.duration for p in run.pages if not run.span_of(p.began)], 1)
    whole = percentile([page.duration for page in run.pages], 0.99)
    told = f"OVER in {', '.join(over)}" if over else "under in every phase"
    return f"{told}; of the whole run {whole:.2f} s; a healthy page {healthy:.2f} s"

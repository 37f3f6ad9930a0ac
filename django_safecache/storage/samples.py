"""Puts samples of problems in their few slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from django_safecache.models import ProblemSample
from django_safecache.models.fields import CALL_SITE_LENGTH
from django_safecache.recording.fingerprints import shortened
from django_safecache.recording.samples import MAX_SAMPLES, Sample
from django_safecache.storage.upserts import BATCH_SIZE


def store_samples(
    samples: Iterable[Sample], found: Mapping[str, int], using: str
) -> None:
    """Put `samples` in free slots. One of a call site that has one finds no room."""
    of_problem: defaultdict[int, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        if sample.fingerprint in found:
            site = shortened(sample.call_site, CALL_SITE_LENGTH)
            of_problem[found[sample.fingerprint]][site] = sample
    taken = _taken_slots(of_problem, using)
    rows = []
    for problem, by_site in sorted(of_problem.items()):
        slots = taken[problem]
        free = sorted(set(range(MAX_SAMPLES)).difference(slots.values()))
        new = {site: sample for site, sample in by_site.items() if site not in slots}
        rows += [
            ProblemSample(
                # Not the problem: a router that does not know this database would
                # be asked, and forbid it.
                problem_id=problem,
                slot=slot,
                call_site=site,
                taken_at=sample.taken,
                traceback=sample.text,
            )
            for slot, (site, sample) in zip(free, new.items(), strict=False)
        ]
    # Another writer may be first to a slot; there are others then that say as much.
    ProblemSample.objects.using(using).bulk_create(
        rows, batch_size=BATCH_SIZE, ignore_conflicts=True
    )


def _taken_slots(
    problems: Iterable[int], using: str
) -> defaultdict[int, dict[str, int]]:
    """Problem to call site to slot."""
    taken: defaultdict[int, dict[str, int]] = defaultdict(dict)
    rows = ProblemSample.objects.using(using).filter(problem__in=list(problems))
    for problem, site, slot in rows.values_list("problem", "call_site", "slot"):
        taken[problem][site] = slot
    return taken

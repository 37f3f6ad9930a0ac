"""The tables of the counts, the problems and the digest mail.

Written by `storage`, read by `reports`. Three rules hold for all of them:

- A process (a *writer*) owns its rows and stores absolute totals, so that storing
  the same totals twice changes nothing.
- Rows rolled up have no writer. What a writer will not store again is taken from its
  rows and added to those of all three resolutions in one transaction, so at any moment
  the rows without a writer, of any one resolution, and the rows with one are together
  what was counted, once.
- A unique key stays under 3072 bytes when each character takes four, the limit of
  InnoDB. Longer values are shortened by `recording.fingerprints.shortened`.
"""

from django_safecache.models.counts import (
    ALL_SERVERS,
    CacheDigest,
    CachePlace,
    Together,
)
from django_safecache.models.fields import Resolution
from django_safecache.models.mails import (
    Dashboard,
    DigestDelivery,
    DigestMail,
    MailStatus,
)
from django_safecache.models.problems import (
    Facet,
    Problem,
    ProblemCount,
    ProblemFacet,
    ProblemSample,
    ProblemState,
)
from django_safecache.models.writers import Horizon, Writer

__all__ = [
    "ALL_SERVERS",
    "CacheDigest",
    "CachePlace",
    "Dashboard",
    "DigestDelivery",
    "DigestMail",
    "Facet",
    "Horizon",
    "MailStatus",
    "Problem",
    "ProblemCount",
    "ProblemFacet",
    "ProblemSample",
    "ProblemState",
    "Resolution",
    "Together",
    "Writer",
]

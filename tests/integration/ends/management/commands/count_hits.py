from __future__ import annotations

import sys

from django.core.management.base import BaseCommand
from ends_site import count


class Command(BaseCommand):
    help = "Count some hits, and end as it is told."

    def add_arguments(self, parser):
        parser.add_argument("hits", type=int)
        parser.add_argument("--code", type=int)

    def handle(self, *, hits, code, **options):
        count(hits)
        if code is not None:
            sys.exit(code)

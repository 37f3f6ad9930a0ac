from __future__ import annotations

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import models

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import CacheDigest, Dashboard
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS

TABLES = list(apps.get_app_config("django_safecache").get_models())


class TestSchema:
    @pytest.mark.django_db
    def test_the_migrations_are_complete(self):
        call_command("makemigrations", "django_safecache", check=True, dry_run=True)

    def test_a_cache_digest_has_a_column_for_all_that_is_counted(self):
        columns = {field.name for field in CacheDigest._meta.get_fields()}
        key = {"pk", "resolution", "bucket", "place", "writer"}
        figures = {*COUNTS, *FAILURE_KINDS, *histogram.COLUMNS}
        assert columns == {*key, *figures, "duration_sum", "duration_max"}

    @pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
    def test_keys_and_indexes_fit_the_limit_of_innodb(self, model):
        """3072 bytes an index, four for each character."""
        for index in [*model._meta.constraints, *model._meta.indexes]:
            fields = [model._meta.get_field(name) for name in index.fields]
            size = sum(4 * (field.max_length or 2) for field in fields)
            assert size <= 3072, index.name
            assert not any(isinstance(field, models.TextField) for field in fields)

    def test_the_dashboard_is_no_table_but_a_permission(self):
        assert not Dashboard._meta.managed
        assert Dashboard._meta.default_permissions == ()
        assert [name for name, _ in Dashboard._meta.permissions] == ["view_dashboard"]

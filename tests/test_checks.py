from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from django_safecache.backend import SafeCache

BACKEND = "django_safecache.backend.SafeCache"
GOOD = {"default": {"BACKEND": BACKEND, "LOCATION": "127.0.0.1:11211"}}


@pytest.fixture(autouse=True)
def _site(settings):
    settings.CACHES = GOOD


class Child(SafeCache):
    """A backend of the site's own."""


def messages():
    return [(message.id, message.msg) for message in run_checks(tags=["safecache"])]


def ids():
    return [identifier for identifier, _ in messages()]


class TestChecks:
    def test_a_site_that_is_set_up_well_has_none(self):
        assert messages() == []

    def test_each_has_a_hint(self, settings):
        settings.CACHES = {"default": {**GOOD["default"], "OPTIONS": {"nonsense": 1}}}
        settings.SAFECACHE = {"DATABASE": "nowhere", "DIGEST": {"RECIPIENTS": ["a@b"]}}
        settings.USE_TZ = False
        found = run_checks(tags=["safecache"])
        assert len(found) == 4
        assert all(message.hint for message in found)


class TestE001:
    @pytest.mark.parametrize(
        "wrong", [None, {"NONSENSE": 1}, {"DIGEST": {"TIME_ZONE": "Mars/Olympus"}}]
    )
    def test_a_wrong_setting_is_an_error_and_the_only_one(self, settings, wrong):
        settings.SAFECACHE = wrong
        ((identifier, text),) = messages()
        assert identifier == "django_safecache.E001"
        assert text.startswith("SAFECACHE")


class TestE002:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"OPTIONS": {"batch_max_bites": 1024}},
            {"OPTIONS": {"timeout": -1}},
            {"LOCATION": ""},
            {"LOCATION": "127.0.0.1:port"},
        ],
    )
    def test_a_cache_that_cannot_be_made_is_named(self, settings, wrong):
        settings.CACHES = {**GOOD, "pages": {**GOOD["default"], **wrong}}
        ((identifier, text),) = messages()
        assert identifier == "django_safecache.E002"
        assert text.startswith("CACHES['pages'] cannot be used: ")

    def test_a_child_of_the_backend_is_checked_too(self, settings):
        settings.CACHES = {
            **GOOD,
            "pages": {"BACKEND": f"{__name__}.Child", "OPTIONS": {"nonsense": 1}},
        }
        assert ids() == ["django_safecache.E002"]

    def test_no_server_is_asked(self, settings, local):
        settings.CACHES = {"default": {**GOOD["default"], "LOCATION": local.address}}
        assert messages() == []
        assert not local.commands

    def test_django_s_own_checks_fail_on_it_too(self, settings):
        settings.CACHES = {"default": {**GOOD["default"], "OPTIONS": {"nonsense": 1}}}
        with pytest.raises(ImproperlyConfigured, match="OPTIONS has no 'nonsense'"):
            call_command("check")

    def test_caches_of_others_are_their_own_business(self, settings):
        settings.CACHES = {
            **GOOD,
            "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "gone": {"BACKEND": "no.such.Backend"},
        }
        assert messages() == []


class TestE003:
    def test_a_database_that_is_not_there_is_an_error(self, settings):
        settings.SAFECACHE = {"DATABASE": "nowhere"}
        assert messages() == [
            (
                "django_safecache.E003",
                "SAFECACHE[\"DATABASE\"] is 'nowhere', which is not in DATABASES.",
            )
        ]


class TestWarnings:
    def test_w001_nothing_uses_the_cache(self, settings):
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        }
        assert ids() == ["django_safecache.W001"]

    def test_w002_counts_need_time_zones(self, settings):
        settings.USE_TZ = False
        assert ids() == ["django_safecache.W002"]

    def test_w003_nobody_has_chosen_a_sender(self, settings):
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": ["ops@example.com"]}}
        assert ids() == ["django_safecache.W003"]
        settings.DEFAULT_FROM_EMAIL = "site@example.com"
        assert ids() == []

    def test_w003_is_silent_when_the_digest_has_a_sender_or_no_readers(self, settings):
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": ["a@b"], "FROM": "c@d"}}
        assert ids() == []
        settings.SAFECACHE = {"DIGEST": {"RECIPIENTS": []}}
        assert ids() == []

    def test_w004_an_option_of_pymemcache_has_no_effect(self, settings):
        options = {"ignore_exc": True, "use_pooling": True, "max_pool_size": 4}
        settings.CACHES = {"default": {**GOOD["default"], "OPTIONS": options}}
        assert messages() == [
            (
                "django_safecache.W004",
                "CACHES['default']: OPTIONS['ignore_exc'] has no effect: no transport "
                "failure reaches the caller.",
            ),
            (
                "django_safecache.W004",
                "CACHES['default']: OPTIONS['use_pooling'] has no effect: connections "
                "are always pooled.",
            ),
        ]

    def test_they_do_not_fail_manage_py_check(self, settings):
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        }
        call_command("check")

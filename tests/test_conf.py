from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_safecache.conf import DEFAULTS, get_settings


def some_callable(*args):
    return "called"


def configured(settings, **safecache):
    settings.SAFECACHE = safecache
    return get_settings()


class TestDefaults:
    def test_nothing_needs_to_be_set(self, settings):
        conf = configured(settings)
        assert (conf.database, conf.flush, conf.flush_interval) == (
            "default",
            "thread",
            10,
        )
        assert conf.key_groups == ()
        assert conf.retention_days.five_minutes == 2
        assert (conf.account_contextvar, conf.account) == ("account", None)
        assert conf.store_accounts == "hmac"
        assert conf.browser_errors.enabled is False
        assert conf.digest.recipients == ()
        assert conf.digest.sender is None
        assert conf.digest.zone == ZoneInfo("UTC")
        assert (conf.digest.send_empty, conf.digest.delivery) == (
            "never",
            "at_most_once",
        )

    def test_what_is_not_given_in_a_nested_dictionary_has_its_default(self, settings):
        conf = configured(
            settings, RETENTION_DAYS={"hour": 30}, DIGEST={"FROM": "a@b.c"}
        )
        assert conf.retention_days.hour == 30
        assert conf.retention_days.day == DEFAULTS["RETENTION_DAYS"]["day"]
        assert conf.digest.sender == "a@b.c"

    def test_the_digest_has_the_time_zone_of_the_site_unless_told(self, settings):
        settings.TIME_ZONE = "Europe/Vienna"
        assert configured(settings).digest.zone == ZoneInfo("Europe/Vienna")
        conf = configured(settings, DIGEST={"TIME_ZONE": "Asia/Tokyo"})
        assert conf.digest.zone == ZoneInfo("Asia/Tokyo")


class TestValues:
    def test_a_change_of_the_setting_is_seen(self, settings):
        assert configured(settings, FLUSH="off").flush == "off"
        assert configured(settings, FLUSH="request").flush == "request"

    def test_callables_are_given_as_such_or_by_their_path(self, settings):
        path = "django_safecache.recording.fingerprints.clean"
        conf = configured(settings, ACCOUNT=some_callable, FINGERPRINT=path)
        assert conf.account is some_callable
        assert conf.fingerprint("a\0b") == "a b"

    def test_key_groups_are_compiled_in_their_order(self, settings):
        conf = configured(settings, KEY_GROUPS=[("^a", "A"), (r"\d", "number")])
        assert [(pattern.pattern, name) for pattern, name in conf.key_groups] == [
            ("^a", "A"),
            (r"\d", "number"),
        ]


class TestMistakes:
    @pytest.mark.parametrize(
        ("safecache", "message"),
        [
            (["x"], "SAFECACHE is ['x'], but must be a dictionary."),
            (
                {"FLUSHING": "thread"},
                "SAFECACHE has the unknown name 'FLUSHING'; known are "
                f"{', '.join(DEFAULTS)}.",
            ),
            (
                {"FLUSH": "sometimes"},
                "SAFECACHE[\"FLUSH\"] is 'sometimes', but must be one of "
                "'thread', 'request', 'manual', 'off'.",
            ),
            (
                {"DATABASE": ""},
                "SAFECACHE[\"DATABASE\"] is '', "
                "but must be a string that says something.",
            ),
            (
                {"FLUSH_INTERVAL": 0},
                'SAFECACHE["FLUSH_INTERVAL"] is 0, '
                "but must be a number of seconds above 0.",
            ),
            (
                {"FLUSH_INTERVAL": True},
                'SAFECACHE["FLUSH_INTERVAL"] is True, '
                "but must be a number of seconds above 0.",
            ),
            (
                {"FLUSH_INTERVAL": float("nan")},
                'SAFECACHE["FLUSH_INTERVAL"] is nan, '
                "but must be a number of seconds above 0.",
            ),
            (
                {"KEY_GROUPS": [("(", "a")]},
                "SAFECACHE[\"KEY_GROUPS\"] is [('(', 'a')], "
                "but must be a list of (regular expression, name of the group).",
            ),
            (
                {"KEY_GROUPS": [("a", "")]},
                "SAFECACHE[\"KEY_GROUPS\"] is [('a', '')], "
                "but must be a list of (regular expression, name of the group).",
            ),
            (
                {"KEY_GROUPS": "ab"},
                "SAFECACHE[\"KEY_GROUPS\"] is 'ab', "
                "but must be a list of (regular expression, name of the group).",
            ),
            (
                {"RETENTION_DAYS": {"hour": "90"}},
                'SAFECACHE["RETENTION_DAYS"]["hour"] is \'90\', '
                "but must be a whole number of days above 0.",
            ),
            (
                {"BROWSER_ERRORS": True},
                'SAFECACHE["BROWSER_ERRORS"] is True, but must be a dictionary.',
            ),
            (
                {"BROWSER_ERRORS": {"ENABLED": 1}},
                'SAFECACHE["BROWSER_ERRORS"]["ENABLED"] is 1, '
                "but must be True or False.",
            ),
            (
                {"BROWSER_ERRORS": {"PER_CLIENT": 0}},
                'SAFECACHE["BROWSER_ERRORS"]["PER_CLIENT"] is 0, '
                "but must be a whole number of reports a minute above 0.",
            ),
            (
                {"ACCOUNT": "no.such.thing"},
                "SAFECACHE[\"ACCOUNT\"] is 'no.such.thing', "
                "but must be a callable, the dotted path of one, or None.",
            ),
            (
                {"ACCOUNT_CONTEXTVAR": 1},
                'SAFECACHE["ACCOUNT_CONTEXTVAR"] is 1, but must be a string or None.',
            ),
            (
                {"DIGEST": {"RECIPIENTS": "a@b.c"}},
                'SAFECACHE["DIGEST"]["RECIPIENTS"] is \'a@b.c\', '
                "but must be a list of strings.",
            ),
            (
                {"DIGEST": {"TIME_ZONE": "Europe/Nowhere"}},
                'SAFECACHE["DIGEST"]["TIME_ZONE"] is \'Europe/Nowhere\', '
                "but must be the name of a time zone or None.",
            ),
            (
                {"DIGEST": {"TIME_ZONE": "../etc/passwd"}},
                'SAFECACHE["DIGEST"]["TIME_ZONE"] is \'../etc/passwd\', '
                "but must be the name of a time zone or None.",
            ),
            (
                {"DIGEST": None},
                'SAFECACHE["DIGEST"] is None, but must be a dictionary.',
            ),
        ],
    )
    def test_a_mistake_is_named_with_what_was_found_and_expected(
        self, settings, safecache, message
    ):
        settings.SAFECACHE = safecache
        with pytest.raises(ImproperlyConfigured) as caught:
            get_settings()
        assert str(caught.value) == message

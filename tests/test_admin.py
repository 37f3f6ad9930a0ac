from __future__ import annotations

import re
from datetime import timedelta

import django
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from stored import at, counted, occurred, reporting

from django_safecache.models import (
    DigestDelivery,
    DigestMail,
    Problem,
    ProblemSample,
)

pytestmark = pytest.mark.django_db

DASHBOARD = "admin:django_safecache_dashboard_changelist"
HOSTILE = "<script>alert(1)</script>"


def visitor(*permissions, **fields):
    user = User.objects.create_user("visitor", **{"is_staff": True, **fields})
    for codename in permissions:
        permission = Permission.objects.get(
            content_type__app_label="django_safecache", codename=codename
        )
        user.user_permissions.add(permission)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def client():
    return visitor("view_dashboard", "view_problem", "view_digestmail")


@pytest.fixture
def now():
    return timezone.now() - timedelta(minutes=1)


def page(client, name=DASHBOARD, *args, **query):
    response = client.get(reverse(name, args=args), query)
    assert response.status_code == 200
    return response.content.decode()


def table(html, name):
    """The rows of the table `name`, as lists of the texts of their cells."""
    found = re.search(rf'<table id="safecache-{name}">(.*?)</table>', html, re.DOTALL)
    if found is None:
        return None
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    return [
        [
            " ".join(re.sub(r"<[^>]*>", " ", cell).replace("&nbsp;", " ").split())
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        for row in rows
    ]


class TestPermission:
    def test_visitors_are_sent_to_the_login(self):
        response = Client().get(reverse(DASHBOARD))
        assert response.status_code == 302
        assert response.url.startswith("/admin/login/")

    def test_staff_without_the_permission_are_refused(self):
        client = visitor("view_problem", "view_digestmail")
        assert client.get(reverse(DASHBOARD)).status_code == 403
        assert "Cache dashboard" not in client.get("/admin/").content.decode()

    def test_the_permission_is_enough(self):
        client = visitor("view_dashboard")
        assert page(client)
        assert reverse(DASHBOARD) in client.get("/admin/").content.decode()

    def test_the_permission_without_being_staff_is_not(self):
        client = visitor("view_dashboard", is_staff=False)
        assert client.get(reverse(DASHBOARD)).status_code == 302

    def test_there_is_nothing_behind_it_to_add_or_to_change(self):
        client = visitor(is_superuser=True)
        for path in ("add/", "1/change/", "1/delete/", "1/history/"):
            response = client.get(reverse(DASHBOARD) + path)
            assert response.status_code == 404

    def test_links_are_for_those_who_may_follow_them(self, now):
        occurred(now)
        DigestMail.objects.create(day=now.date())
        links = ("problem/", "digestmail/")
        seen = page(visitor("view_dashboard"))
        assert not any(link in seen for link in links)
        User.objects.all().delete()
        seen = page(visitor("view_dashboard", "view_problem", "view_digestmail"))
        assert all(link in seen for link in links)


class TestCounts:
    def test_the_numbers_of_the_period_are_shown(self, client, now):
        counted(now, hits=1500, misses=500, unavailable=421, epipe=3, timeout=1)
        counted(now, server="", loaded=421)
        counted(now - timedelta(days=2), hits=7)
        assert table(page(client), "counts") == [
            ["Hits", "1,500"],
            ["Misses", "500"],
            ["Hit ratio", "75.0 %"],
            ["Unavailable", "421"],
            ["Loaded from the database", "421"],
            ["Failures", "4"],
            ["epipe", "3"],
            ["timeout", "1"],
        ]

    def test_they_are_shown_by_cache_and_server_with_the_loaders_last(
        self, client, now
    ):
        counted(now, server="", loaded=421)
        counted(now, server="b:1", hits=1, misses=1)
        counted(now, server="a:1", unavailable=421, epipe=3)
        assert table(page(client), "servers")[1:] == [
            [
                "default",
                "a:1",
                "0",
                "0",
                "no reads answered",
                "421",
                "",
                "3",
                "epipe 3",
            ],
            ["default", "b:1", "1", "1", "50.0 %", "0", "", "0", ""],
            ["default", "loaders (the database)", "", "", "", "", "421", "", ""],
        ]

    @pytest.mark.parametrize(
        ("period", "hits", "steps"),
        [("1h", 1, 12), ("24h", 11, 24), ("7d", 111, 28), ("90d", 1111, 30)],
    )
    def test_the_period_can_be_chosen(self, client, now, period, hits, steps):
        for hours, number in ((0, 1), (20, 10), (150, 100), (2000, 1000)):
            counted(now - timedelta(hours=hours), hits=number)
        html = page(client, period=period)
        assert table(html, "counts")[0] == ["Hits", f"{hits:,}"]
        # One more unless the period happens to begin with a whole hour or day.
        assert len(table(html, "steps")) - 1 in (steps, steps + 1)
        assert f'<option value="{period}" selected>' in html

    def test_a_cache_and_a_server_can_be_chosen(self, client, now):
        counted(now, server="a:1", hits=1)
        counted(now, server="b:1", hits=10)
        counted(now, server="a:1", alias="other", hits=100)
        assert table(page(client, server="a:1"), "counts")[0] == ["Hits", "101"]
        assert table(page(client, alias="default"), "counts")[0] == ["Hits", "11"]
        both = page(client, alias="other", server="a:1")
        assert table(both, "counts")[0] == ["Hits", "100"]
        assert [row[:2] for row in table(both, "servers")[1:]] == [["other", "a:1"]]


class TestNoData:
    def test_it_is_said_and_is_not_zero(self, client):
        html = page(client)
        assert "No process reported in this period." in html
        assert table(html, "counts") is None
        assert table(html, "steps") is None

    def test_a_process_that_reports_nothing_counts_zero(self, client, now):
        reporting(now - timedelta(days=2), now)
        assert table(page(client), "counts")[0] == ["Hits", "0"]

    def test_steps_without_data_are_told_from_those_without_calls(self, client, now):
        reporting(now - timedelta(minutes=22), timezone.now())
        steps = table(page(client, period="1h"), "steps")[1:]
        assert steps[0][1] == "0"
        assert steps[-1][1:] == ["no data"]


class TestBadQuestions:
    @pytest.mark.parametrize(
        "query",
        [
            {"period": "13 moons"},
            {"period": HOSTILE},
            {"alias": "nope"},
            {"server": "x\0y"},
            {"server": "'; DROP TABLE"},
            {"period": "\N{GRINNING FACE}" * 500},
        ],
    )
    def test_they_are_answered_with_a_note(self, client, now, query):
        counted(now, hits=5)
        html = page(client, **query)
        assert '<p class="errornote">' in html
        assert HOSTILE not in html
        assert table(html, "counts")[0] == ["Hits", "5"]

    def test_unknown_parameters_are_nobody_s_business(self, client):
        assert "errornote" not in page(client, q="x", period="", alias="", server="")


class TestOtherTables:
    def test_problems_are_shown_with_their_states(self, client, now):
        occurred(
            now,
            message=HOSTILE,
            errno=32,
            count=1234,
            first_seen=now - timedelta(days=40),
            regressed_at=now,
            accounts=["a", "b"],
            call_sites=["campfire.views.room"],
        )
        html = page(client)
        assert HOSTILE not in html
        (row,) = table(html, "problems")[1:]
        assert row[0] == "1,234"
        assert row[1] == (
            "epipe builtins.BrokenPipeError (errno 32) "
            "&lt;script&gt;alert(1)&lt;/script&gt; in campfire.views.room"
        )
        assert row[2] == "regressed"
        assert row[5:] == ["2", "10.0.0.1:11211"]

    def test_a_process_that_fell_silent_is_seen(self, client, now):
        reporting(now - timedelta(hours=5), now - timedelta(minutes=119))
        (row,) = table(page(client), "writers")[1:]
        assert row[:2] == ["web-1", "1"]
        assert row[3] == "2 hours ago: silent"

    def test_the_last_mails_are_listed(self, client):
        for day in range(1, 10):
            DigestMail.objects.create(
                day=at(2025, 1, day).date(), status="sent", subject=f"mail {day}"
            )
        rows = table(page(client), "mails")[1:]
        assert [row[2] for row in rows] == [f"mail {day}" for day in range(9, 2, -1)]


class TestMarkup:
    """What a strict content security policy would forbid is not there."""

    def pages(self, client, now):
        counted(now, hits=5, epipe=1)
        problem = occurred(now, call_sites=["a"], accounts=["b"])
        mail = DigestMail.objects.create(day=now.date(), text="t", html="<p>h</p>")
        yield page(client)
        yield page(client, "admin:django_safecache_problem_change", problem.pk)
        yield page(client, "admin:django_safecache_digestmail_change", mail.pk)

    def test_no_script_and_no_style_is_inline(self, client, now):
        for html in self.pages(client, now):
            assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", html)
            assert not re.search(r"\sstyle\s*=", html)
            assert not re.search(r"\son\w+\s*=", html)
            assert "javascript:" not in html

    def test_the_style_sheet_is_linked(self, client, now):
        for html in self.pages(client, now):
            assert "django_safecache/admin.css" in html


class TestProblems:
    LIST = "admin:django_safecache_problem_changelist"
    DETAIL = "admin:django_safecache_problem_change"

    def run(self, client, action, *problems):
        chosen = [problem.pk for problem in problems]
        return client.post(
            reverse(self.LIST), {"action": action, "_selected_action": chosen}
        )

    def test_they_are_shown_and_cannot_be_edited(self, now):
        client = visitor(is_superuser=True)
        problem = occurred(now, message=HOSTILE, call_sites=[HOSTILE], accounts=["a"])
        ProblemSample.objects.create(
            problem=problem, slot=0, taken_at=now, traceback=HOSTILE
        )
        html = page(client, self.DETAIL, problem.pk)
        assert HOSTILE not in html
        assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
        assert 'name="_save"' not in html
        client.post(reverse(self.DETAIL, args=[problem.pk]), {"message": "changed"})
        problem.refresh_from_db()
        assert problem.message == HOSTILE
        assert (
            client.get(reverse("admin:django_safecache_problem_add")).status_code == 403
        )

    @pytest.mark.parametrize(
        ("action", "state"),
        [("resolve", "resolved"), ("mute", "muted"), ("reopen", "open")],
    )
    def test_their_state_can_be_changed(self, now, action, state):
        client = visitor("view_problem", "change_problem")
        one, other = occurred(now, state="regressed"), occurred(now, state="regressed")
        self.run(client, action, one)
        one.refresh_from_db()
        other.refresh_from_db()
        assert (one.state, other.state) == (state, "regressed")
        assert (one.resolved_at is not None) == (state == "resolved")

    def mute(self, problem, **fields):
        client = visitor("view_problem", "change_problem")
        data = {"action": "mute", "_selected_action": [problem.pk], **fields}
        response = client.post(reverse(self.LIST), data, follow=True)
        problem.refresh_from_db()
        return response.content.decode()

    def test_they_can_be_muted_until_a_day_or_up_to_a_number_an_hour(self, now):
        problem = occurred(now)
        day = (now + timedelta(days=10)).date()
        html = self.mute(problem, muted_until=day.isoformat(), muted_above="100")
        assert problem.state == "muted"
        assert problem.muted_until == at(day.year, day.month, day.day)
        assert problem.muted_above == 100
        assert problem.muted_at > now
        assert f"until {day}, until more than 100 an hour" in html

    def test_a_day_begins_in_the_time_zone_of_the_digest(self, now, settings):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Pacific/Auckland"}}
        problem = occurred(now)
        self.mute(problem, muted_until="2099-06-15")
        assert problem.muted_until == at(2099, 6, 14, 12)

    def test_with_neither_they_are_muted_for_good(self, now):
        problem = occurred(now)
        assert "for good" in self.mute(problem)
        assert (problem.muted_until, problem.muted_above) == (None, None)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"muted_until": "tomorrow"}, "Enter a valid date."),
            ({"muted_until": "2020-01-01"}, "2020-01-01 is not to come."),
            ({"muted_above": "-1"}, "greater than or equal to 0"),
            ({"muted_above": "9" * 30}, "less than or equal to"),
            ({"muted_above": "many"}, "Enter a whole number."),
        ],
    )
    def test_what_makes_no_sense_is_said_and_changes_nothing(self, now, fields, said):
        problem = occurred(now)
        assert said in self.mute(problem, **fields)
        assert problem.state == "open"

    @pytest.mark.parametrize("action", ["resolve", "reopen"])
    def test_one_that_is_resolved_or_open_is_muted_no_more(self, now, action):
        problem = occurred(now)
        self.mute(problem, muted_above="5")
        User.objects.all().delete()
        self.run(visitor("view_problem", "change_problem"), action, problem)
        problem.refresh_from_db()
        assert (problem.muted_at, problem.muted_above) == (None, None)

    def test_not_by_those_who_may_only_look(self, client, now):
        problem = occurred(now)
        assert 'value="resolve"' not in page(client, self.LIST)
        self.run(client, "resolve", problem)
        assert Problem.objects.get().state == "open"

    def test_those_without_any_permission_see_nothing(self, now):
        client = visitor("view_dashboard")
        problem = occurred(now)
        assert client.get(reverse(self.LIST)).status_code == 403
        response = client.get(reverse(self.DETAIL, args=[problem.pk]))
        assert response.status_code == 403


class TestMails:
    DETAIL = "admin:django_safecache_digestmail_change"
    HTML = "admin:django_safecache_digestmail_html"

    @pytest.fixture
    def mail(self):
        mail = DigestMail.objects.create(
            day=at(2025, 1, 14).date(),
            status="failed",
            subject=HOSTILE,
            text=f"text {HOSTILE}",
            html=f"<p>html</p>{HOSTILE}",
        )
        DigestDelivery.objects.create(
            mail=mail, recipient="ops@example.com", error=f"550 {HOSTILE}"
        )
        DigestDelivery.objects.create(
            mail=mail, recipient="dev@example.com", sent_at=at(2025, 1, 15, 6)
        )
        return mail

    def test_the_page_shows_the_text_and_who_got_it(self, client, mail):
        html = page(client, self.DETAIL, mail.pk)
        assert HOSTILE not in html
        assert "text &lt;script&gt;" in html
        assert "dev@example.com: Jan. 15, 2025, 6 a.m." in html
        assert "ops@example.com: 550 &lt;script&gt;" in html

    def test_the_html_is_in_a_frame_that_may_do_nothing(self, client, mail):
        html = page(client, self.DETAIL, mail.pk)
        (frame,) = re.findall(r"<iframe[^>]*>", html)
        assert " sandbox " in frame
        assert f'src="{reverse(self.HTML, args=[mail.pk])}"' in frame

    def test_and_is_served_so_that_it_does_nothing_outside_of_it_either(
        self, client, mail
    ):
        response = client.get(reverse(self.HTML, args=[mail.pk]))
        assert response.content.decode() == mail.html
        assert response.headers["Content-Security-Policy"] == (
            "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        )
        assert response.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.skipif(django.VERSION < (6, 0), reason="the middleware is new in 6.0")
    def test_the_site_s_own_policy_does_not_replace_it(self, client, mail, settings):
        settings.SECURE_CSP = {"default-src": ["'self'"]}
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "django.middleware.csp.ContentSecurityPolicyMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ]
        response = client.get(reverse(self.HTML, args=[mail.pk]))
        assert response.headers["Content-Security-Policy"].startswith("sandbox; ")
        assert response.headers["X-Frame-Options"] == "SAMEORIGIN"

    def test_neither_is_for_those_without_the_permission(self, mail):
        client = visitor("view_dashboard")
        for name in (self.DETAIL, self.HTML):
            assert client.get(reverse(name, args=[mail.pk])).status_code == 403

    def test_a_mail_that_is_not_there_is_not_found(self, client):
        assert client.get(reverse(self.HTML, args=[7])).status_code == 404

    def test_it_cannot_be_edited(self, mail):
        client = visitor(is_superuser=True)
        assert 'name="_save"' not in page(client, self.DETAIL, mail.pk)
        client.post(reverse(self.DETAIL, args=[mail.pk]), {"subject": "changed"})
        mail.refresh_from_db()
        assert mail.subject == HOSTILE

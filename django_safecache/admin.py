"""The dashboard, the problems and the stored mails. None of it can be edited."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_safecache import dashboard
from django_safecache.conf import get_settings
from django_safecache.models import (
    Dashboard,
    DigestDelivery,
    DigestMail,
    Facet,
    Problem,
    ProblemFacet,
    ProblemSample,
    ProblemState,
)
from django_safecache.muting import MutingForm, ProblemActionForm
from django_safecache.muting import described as muting_told

FACETS_SHOWN = 50
STYLES = {"all": ["django_safecache/admin.css"]}

# A stored mail is markup of this package's making, shown as if it were a stranger's:
# in a frame without an origin, that runs nothing and fetches nothing.
MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"

_M = TypeVar("_M", bound=Model)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin
else:
    # Django's own takes no type parameter when it runs.
    class _ModelAdmin(admin.ModelAdmin):
        def __class_getitem__(cls, parameter):
            return cls


class StoredAdmin(_ModelAdmin[_M]):
    """Reads the database of the counts, and lets nobody add, change or delete."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[_M]:
        return super().get_queryset(request).using(_database())

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Dashboard)
class DashboardAdmin(StoredAdmin[Dashboard]):
    """One page, for those with the permission ``view_dashboard``."""

    change_list_template = "admin/django_safecache/dashboard.html"

    def get_urls(self) -> list[URLPattern]:
        # The model has no table: there is nothing else to have an address.
        view = self.admin_site.admin_view(self.changelist_view)
        return [path("", view, name="django_safecache_dashboard_changelist")]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("django_safecache.view_dashboard")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        may = request.user.has_perm
        context = {
            **self.admin_site.each_context(request),
            "title": _("Cache dashboard"),
            "opts": self.opts,
            "sees_problems": may("django_safecache.view_problem"),
            "sees_mails": may("django_safecache.view_digestmail"),
            **dashboard.context(dashboard.select(request.GET)),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.change_list_template, context)


@admin.register(Problem)
class ProblemAdmin(StoredAdmin[Problem]):
    """Problems are found, not made; what can be changed is their state."""

    class Media:
        css = STYLES

    list_display = ["kind", "exception", "message", "state", "muted", "last_seen"]
    list_filter = ["state", "kind"]
    action_form = ProblemActionForm
    search_fields = ["exception", "message"]
    ordering = ["-last_seen"]
    fields = [
        "kind",
        "exception",
        "errno",
        "message",
        "state",
        "muted",
        "first_seen",
        "last_seen",
        "resolved_at",
        "regressed_at",
        "accounts",
        "call_sites",
        "key_groups",
        "releases",
        "samples",
        "fingerprint",
        "algorithm",
    ]
    readonly_fields = [
        "muted",
        "accounts",
        "call_sites",
        "key_groups",
        "releases",
        "samples",
    ]
    actions = ["resolve", "mute", "reopen"]

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        """Whether the visitor may say what is to become of a problem."""
        return request.user.has_perm("django_safecache.change_problem")

    @admin.action(permissions=["resolve"], description=_("Resolve: it is mended"))
    def resolve(self, request: HttpRequest, queryset: QuerySet[Problem]) -> None:
        values = {"resolved_at": timezone.now(), **Problem.NOT_MUTED}
        self._set(request, queryset, ProblemState.RESOLVED, **values)

    @admin.action(permissions=["resolve"], description=_("Mute: do not mail it"))
    def mute(self, request: HttpRequest, queryset: QuerySet[Problem]) -> None:
        form = MutingForm(request.POST)
        if form.is_valid():
            self._set(request, queryset, ProblemState.MUTED, **form.values())
            return
        for errors in form.errors.values():
            self.message_user(request, " ".join(map(str, errors)), messages.ERROR)

    @admin.action(permissions=["resolve"], description=_("Reopen"))
    def reopen(self, request: HttpRequest, queryset: QuerySet[Problem]) -> None:
        values = {"resolved_at": None, **Problem.NOT_MUTED}
        self._set(request, queryset, ProblemState.OPEN, **values)

    def _set(
        self,
        request: HttpRequest,
        problems: QuerySet[Problem],
        state: ProblemState,
        **values: Any,
    ) -> None:
        changed = problems.update(state=state, **values)
        self.message_user(
            request,
            _("%(number)d problems are now %(state)s.")
            % {"number": changed, "state": state.label},
        )

    @admin.display(description=_("accounts"))
    def accounts(self, problem: Problem) -> int:
        return _values(problem, Facet.ACCOUNT).count()

    @admin.display(description=_("muted"))
    def muted(self, problem: Problem) -> str:
        if problem.state != ProblemState.MUTED:
            return ""
        return muting_told(problem) or str(_("for good"))

    @admin.display(description=_("call sites"))
    def call_sites(self, problem: Problem) -> SafeString:
        return _facet(problem, Facet.CALL_SITE)

    @admin.display(description=_("key groups"))
    def key_groups(self, problem: Problem) -> SafeString:
        return _facet(problem, Facet.KEY_GROUP)

    @admin.display(description=_("releases"))
    def releases(self, problem: Problem) -> SafeString:
        return _facet(problem, Facet.RELEASE)

    @admin.display(description=_("samples"))
    def samples(self, problem: Problem) -> SafeString:
        samples = ProblemSample.objects.using(_database()).filter(problem=problem)
        return format_html_join(
            "",
            '<div>{}</div><pre class="safecache-text">{}</pre>',
            (
                (_moment(sample.taken_at), sample.traceback)
                for sample in samples.order_by("slot")
            ),
        ) or SafeString("-")


@admin.register(DigestMail)
class DigestMailAdmin(StoredAdmin[DigestMail]):
    """The mails as they were sent."""

    class Media:
        css = STYLES

    list_display = ["day", "status", "subject", "sent_at"]
    list_filter = ["status"]
    ordering = ["-day"]
    fields = [
        "day",
        "time_zone",
        "status",
        "sent_at",
        "subject",
        "recipients",
        "as_text",
        "as_html",
    ]
    readonly_fields = ["recipients", "as_text", "as_html"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[DigestMail]:
        return super().get_queryset(request).defer("text", "html")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.html_view)
        name = "django_safecache_digestmail_html"
        return [path("<int:pk>/html/", view, name=name), *super().get_urls()]

    def html_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The HTML of a mail alone, for the frame in its page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        mail = get_object_or_404(self.get_queryset(request).defer(None), pk=pk)
        return HttpResponse(
            mail.html,
            headers={
                "Content-Security-Policy": MAIL_POLICY,
                # Django's middleware would forbid the frame altogether.
                "X-Frame-Options": "SAMEORIGIN",
                "X-Content-Type-Options": "nosniff",
            },
        )

    @admin.display(description=_("recipients"))
    def recipients(self, mail: DigestMail) -> SafeString:
        deliveries = DigestDelivery.objects.using(_database()).filter(mail=mail)
        return format_html_join(
            "",
            "<div>{}: {}</div>",
            (
                (delivery.recipient, _sent(delivery.sent_at, delivery.error))
                for delivery in deliveries.order_by("recipient")
            ),
        ) or SafeString("-")

    @admin.display(description=_("text"))
    def as_text(self, mail: DigestMail) -> SafeString:
        # What is deferred would be read where the site's router says.
        mail.refresh_from_db(using=_database(), fields=["text"])
        return format_html('<pre class="safecache-text">{}</pre>', mail.text)

    @admin.display(description=_("HTML"))
    def as_html(self, mail: DigestMail) -> SafeString:
        return format_html(
            '<iframe class="safecache-mail" sandbox title="{}" src="{}"></iframe>',
            mail.subject,
            reverse(
                "admin:django_safecache_digestmail_html",
                args=[mail.pk],
                current_app=self.admin_site.name,
            ),
        )


def _facet(problem: Problem, facet: Facet) -> SafeString:
    values = _values(problem, facet).order_by("value")[:FACETS_SHOWN]
    return format_html_join("", "<div>{}</div>", values) or SafeString("-")


def _values(problem: Problem, facet: Facet) -> QuerySet[ProblemFacet, tuple[Any, ...]]:
    # By `using`, here as everywhere: a relation is followed to where the site's router
    # says, and that may know nothing of this database.
    facets = ProblemFacet.objects.using(_database()).filter(problem=problem)
    return facets.filter(facet=facet).values_list("value").distinct()


def _database() -> str:
    return get_settings().database


def _sent(moment: datetime | None, error: str) -> str:
    return _moment(moment) if moment else error or str(_("being sent"))


def _moment(moment: datetime) -> str:
    return date_format(timezone.localtime(moment), "DATETIME_FORMAT")

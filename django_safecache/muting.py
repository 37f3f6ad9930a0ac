"""The form by which problems are muted: for good, until a day, or up to a number."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_safecache.conf import get_settings
from django_safecache.models import Problem

MAX_ABOVE = 2_000_000_000
"""What a column of 32 bits takes, roundly."""


class MutingForm(forms.Form):
    """For how long problems are muted; both left empty means for good."""

    muted_until = forms.DateField(required=False)
    muted_above = forms.IntegerField(required=False, min_value=0, max_value=MAX_ABOVE)

    def clean_muted_until(self) -> datetime | None:
        """When that day begins, in the time zone of the digest."""
        day = self.cleaned_data["muted_until"]
        if day is None:
            return None
        moment = datetime.combine(day, time(), get_settings().digest.zone)
        if moment <= timezone.now():
            raise ValidationError(_("%(day)s is not to come.") % {"day": day})
        return moment

    def values(self) -> dict[str, Any]:
        """The columns of a problem that is muted now, as asked for."""
        return {"muted_at": timezone.now(), **self.cleaned_data}


class ProblemActionForm(ActionForm):
    """The fields of `MutingForm` beside the choice of the action.

    Texts here, because a form of actions that is not valid is told as none chosen.
    """

    muted_until = forms.CharField(
        required=False,
        label=_("Mute until:"),
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    muted_above = forms.CharField(
        required=False,
        label=_("or until more an hour than:"),
        widget=forms.NumberInput(attrs={"min": 0}),
    )


def described(problem: Problem) -> str:
    """What ends the muting of `problem`, in words; empty if nothing does."""
    until, above = problem.muted_until, problem.muted_above
    told = []
    if until is not None:
        zone = get_settings().digest.zone
        told.append(_("until %(day)s") % {"day": until.astimezone(zone).date()})
    if above is not None:
        told.append(_("until more than %(number)d an hour") % {"number": above})
    return ", ".join(map(str, told))

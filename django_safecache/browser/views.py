"""Takes the errors that `browser_errors.js` reports. Off unless a site turns it on.

The view is exempt from Django's CSRF check, whose token a static script cannot have on
every site (``CSRF_COOKIE_HTTPONLY``, ``CSRF_USE_SESSIONS``, cached pages). It has no
need of it: a request changes nothing but counts, and those of other sites are refused.
A page elsewhere can send neither the content type without asking first, which nobody
answers, nor an ``Origin`` or ``Sec-Fetch-Site`` that it chooses. Whoever is no browser
can send anything, with a token as well; against that there are the limits.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_safecache.browser.rate_limit import RateLimit
from django_safecache.conf import get_settings
from django_safecache.recording.browser_errors import BrowserErrors, parse
from django_safecache.recording.log_handler import DigestHandler

MAX_BYTES = 8192

_errors = BrowserErrors()
_limit = RateLimit()


@csrf_exempt
def report(request: HttpRequest) -> HttpResponse:
    """Count one browser error: 204, and nothing else to be read.

    404 where ``BROWSER_ERRORS`` is off, 405 for anything but POST, 403 from another
    site, 415 for anything but JSON, 413 over 8 kB, 429 over the limits, 400 for what is
    no report. What the limits refuse is counted as dropped.
    """
    if not get_settings().browser_errors.enabled:
        raise Http404
    return _report(request)


@require_POST
def _report(request: HttpRequest) -> HttpResponse:
    if not _is_from_this_site(request):
        return HttpResponse(status=403)
    if request.content_type != "application/json":
        return HttpResponse(status=415)
    length = request.headers.get("Content-Length") or "0"
    if not length.isdecimal() or int(length[:10]) > MAX_BYTES:
        return HttpResponse(status=413)
    if not _may_report(request):
        return HttpResponse(status=429, headers={"Retry-After": "60"})
    return _count(request)


def _may_report(request: HttpRequest) -> bool:
    conf = get_settings().browser_errors
    # Not X-Forwarded-For: whoever sends it chooses what it says.
    taken = _limit.take(
        request.META.get("REMOTE_ADDR") or "",
        per_client=conf.per_client,
        per_process=conf.per_process,
    )
    if not taken and DigestHandler.recorder is not None:
        DigestHandler.recorder.drop()
    return taken


def _count(request: HttpRequest) -> HttpResponse:
    try:
        # Again, for a body without a length that is sent in chunks.
        body = request.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            return HttpResponse(status=413)
        error = parse(body)
    except (UnreadablePostError, ValueError):
        return HttpResponse(status=400)
    if DigestHandler.recorder is not None:
        _errors.count(DigestHandler.recorder, error)
    return HttpResponse(status=204)


def _is_from_this_site(request: HttpRequest) -> bool:
    """Whether a browser says that a page of this host sends it.

    The scheme is not compared: behind a proxy that ends TLS it may not be known.
    """
    fetch_site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if fetch_site is None and origin is None:
        return False
    if fetch_site not in (None, "same-origin"):
        return False
    return origin is None or _host(origin) == request.get_host().lower()


def _host(origin: str) -> str | None:
    """``host:port`` of an origin as it is compared; None if it is none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or parts.path or parts.query:
        return None
    return parts.netloc.lower()

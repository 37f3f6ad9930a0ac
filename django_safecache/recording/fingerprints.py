"""What makes two failures the same problem, and what of their text may be kept.

Of 7,200 errors with 6 causes these rules make 6 groups: replace the key that the cache
was called with, then hosts and every run of digits, and keep the errno apart. Where it
happened (call site, account, server) is not part of a cause, nor are line numbers,
which would make every problem new with the next release.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace

from django_safecache.recording import client_texts, code_names

ALGORITHM = 1
"""To be raised with every change of the rules, because it changes fingerprints."""

MESSAGE_LENGTH = 500
EXCEPTION_LENGTH = 200
# What is behind this is not looked at: the text may be a server's, and endless.
TEXT_LENGTH = 2000

# Which says what went wrong, as no other number does.
_STATUS = re.compile(
    r"(?:[Ss]tatus|[Cc]ode|HTTP(?: Error)?)(?: |=|: )([1-5]\d\d)(?!\w|[.,-]\d)"
)
_ZEROS = bytes.maketrans(b"123456789", b"000000000")

# The quantifiers are bounded, so that no text makes a pattern take quadratic time.
_URL = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{0,20})://\S+"
    r"|\b(with url): .*?(?= \(Caused by |$)"  # urllib3's, which may have spaces
    r"|\b((?i:url)): \S+"
)
# What redis was asked, which holds the key and the value.
_PIPELINE = re.compile(r"\bCommand # \d+ \(.*\) of pipeline caused error")
_QUERY = re.compile(r"\?[\w.%\[\]-]{1,64}=\S*")
# A header is the rest of its line: a cookie after the first is one too.
_HEADER = re.compile(
    r"""(?ix) \b ((?:proxy-)?authorization|(?:set-)?cookie2?)
    (\\?["']?\s{0,3}[:=]\s{0,3}) .*"""
)
# ``Basic dXNlcjpwYXNz``, not "basic setup".
_BEARER = re.compile(
    r"\b((?i:bearer))\s{1,3}\S+|\b((?i:basic))\s{1,3}(?=\S{1,200}[A-Z0-9=])\S+"
)
# These are secret wherever they are in a name, and the others as a part of one:
# user_name, userName, UserName and USER_NAME, not users or KeyError.
_ANYWHERE = (
    "passwor[dt]|passwd|passphrase|passcode|pwd|secret|token|credential|session"
    "|signature|csrf|username|email|cookie|authorization|bearer|apikey"
)
_PART = "pass|key|auth|jwt|otp|pin|sid|sig|dsn|user|login|account|customer|tenant|phone"
_CAPITAL = "|".join(word.capitalize() for word in _PART.split("|"))
# Percent-encoded too, as it may be in a URL that is part of another; see `_ZEROS`.
_SIGN = r"""\\?["']?\s{0,3}(?:[:=]|%\d[ADad])"""
_SECRET = re.compile(
    rf"""(?x) (?<![\w-])                # so that each name is looked at but once
    (?= [\w-]+ {_SIGN} )
    (?= [\w-]*? (?:
        (?i:{_ANYWHERE})
      | (?<![A-Za-z]) (?i:{_PART}) (?![A-Za-z])
      | (?: (?<![A-Za-z])(?:{_PART}) | {_CAPITAL} )
        (?![a-z]|Error|Exception|Warning)
    ) )
    ([\w-]+) ({_SIGN}[\s:=>,;]{{0,9}}) (?:(?i:bearer|basic)\s{{1,3}})?
    (?: "(?:[^"\\]|\\.)*(?:"|$) | '(?:[^'\\]|\\.)*(?:'|$)
      | \\["'].*?(?:\\["']|$)
      # Not what closes the brackets and quotes that it stands in.
      | \S*[^\s\])}},;"'\\] | \S )"""
)
_EMAIL = re.compile(r"""[^\s@<>"'(]{1,64}@[^\s@<>"')]{1,255}""")
_HOST = re.compile(
    r"""(?x)
    \[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?                        # [::1]:11211
    | (?<![\w:]) (?:[0-9A-Fa-f]{0,4}:){2,7} [0-9A-Fa-f]{0,4} (?![\w:])  # ::1
    | \b \d{1,3} (?:\.\d{1,3}){3} (?::\d{1,5})? \b              # 10.0.0.1:11211
    | \b [A-Za-z0-9][\w-]{0,62} (?:\.[\w-]{1,63}){0,10} :\d{2,5} \b     # cache-1:11211
    """
)
_HEX = re.compile(
    r"\b0x[0-9A-Fa-f]+\b"
    r"|\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b"
    r"|\b(?=[A-Fa-f]{0,40}\d)[0-9A-Fa-f]{6,}\b"
)
_MONTH = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sept?(?:ember)?|Oct(?:ober)?|(?:Nov|Dec)(?:ember)?)"
)
_DAY = "(?:(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?,? )"
_DATE = re.compile(
    rf"\b{_DAY}?(?:\d{{1,2}}(?:st|nd|rd|th)?[ -]{_MONTH}|{_MONTH} \d{{1,4}})\b"
    r"(?:,?[ -]\d{4}\b)?"
)
# All other digits are zeros by then.
_NUMBER = re.compile(
    r"([1-5]\d\d)|(?:(?<![\w>-])[-+])?\d+(?:[.,]\d+)*(?:(?:st|nd|rd|th)\b)?"
)
# A list, which has another length each time.
_LIST = re.compile(r"(<n>|<text>)(?:,? (?:and|or) \1|,\s?\1){1,1000}")
# Random letters and digits: keys of APIs and sessions, identifiers in base 64. Not what
# is hexadecimal, which `_HEX` makes the same as its shorter ones.
_TOKEN = re.compile(
    r"""(?x) (?<![\w+/=-]) (?= [\w+/=-]{20} ) (?! [0-9A-Fa-f-]+ (?![\w+/=-]) )
    (?: (?= [\w+/=-]{0,200}\d ) (?= [\w+/=-]{0,200}[A-Z] )
      | (?= (?: [A-Za-z_+/=-]{0,200}\d ){3} ) ) [A-Za-z0-9_+/=-]{20,}"""
)
# The directory of a release, or somebody's home: not ``/search/``, nor ``and/or/not``.
_PATH = re.compile(
    r"""(?x)
    (?<![\w.~/-]) (?: / [^\s/\\'"`“”<>()\[\]{}|,:;?*]+ ){2,} /?
    # Whose directories have spaces.
    | (?<![\w\\]) (?: [A-Za-z]:[\\/]+ | \\\\+ (?=\w) )
      (?: [^\\/:*?"'<>|]{1,100} [\\/]+ ){1,50} [^\s\\/:*?"'<>|(),;]*
    """
)
# Of a list, by its repr. Searched for only as far as the last end of one.
_LISTS = [
    (re.compile(rf"(?<!\w)[bru]{{0,2}}'{opening}.*?{closing}'"), f"{closing[1]}'")
    for opening, closing in [(r"\[", r"\]"), (r"\(", r"\)"), (r"\{", r"\}")]
]
# What it tries from one place fails from none, or it would take quadratic time.
_QUOTED = re.compile(
    r"""(?x) (?<!\w) [bru]{0,2} (?:
      '[\[({]['"](?=[\w/-]) .* $                      # of a list that was cut off
    | '((?:[^'\\]|\\.|(?<=\w)'(?=\w))*)'             # it's may be within
    | "((?:[^"\\]|\\.)*)"
    | `([^`]*)` | “([^”]*)” | \u2018([^\u2019]*)\u2019 | «([^»]*)»
    ) (?!\w)
    # Cut off, or quotes within quotes: nobody knows where it ends.
    | (?<!\w) [bru]{0,2} ['"`“\u2018«] .* $
    """
)
# A prefix may be a tenant's name.
_KEY_PREFIX = re.compile(r"""[^\s'"<>()=,]{1,250}<key>""")
_LONG = re.compile(r"\S{65,}")


@dataclass(frozen=True, slots=True)
class Cause:
    """One problem as it is told apart from others. `message` is scrubbed."""

    fingerprint: str
    kind: str
    exception: str
    errno: int | None
    message: str
    algorithm: int = ALGORITHM

    def regrouped(self, name: str) -> Cause:
        """The same cause under a fingerprint of the site's own choice."""
        return replace(self, fingerprint=_digest("custom", name))


def cause_of(
    kind: str,
    exception: str,
    errno: int | None,
    text: str,
    *,
    keys: Iterable[object] = (),
    server: str = "",
) -> Cause:
    """The cause behind a failure that was told as `text`.

    `keys` are those the cache was called with, `server` is the one it asked.
    """
    shape = shape_of(exception, errno, text, keys=keys, server=server)
    return cause_of_shape(kind, exception, errno, shape)


def shape_of(
    exception: str,
    errno: int | None,
    text: str,
    *,
    keys: Iterable[object] = (),
    server: str = "",
) -> str:
    """What of a text the rules look at, which is cheap to find out.

    It is neither scrubbed nor longer than `TEXT_LENGTH`. See `cause_of`.
    """
    text = client_texts.words(exception, text[:TEXT_LENGTH])
    # The operating system's own words hold no key, but a key may be one of them.
    return _shape(text, () if errno is not None else keys, server)


def cause_of_shape(kind: str, exception: str, errno: int | None, shape: str) -> Cause:
    """The cause behind all failures whose text has the `shape`; see `shape_of`."""
    message = _by_the_rules(shape)
    exception = shortened(exception, EXCEPTION_LENGTH)
    fingerprint = _digest(str(ALGORITHM), kind, exception, str(errno), message)
    return Cause(fingerprint, kind, exception, errno, message)


def scrubbed(text: str, *, keys: Iterable[object] = (), server: str = "") -> str:
    """The first line of `text` without keys, values, secrets, hosts and numbers.

    Removed is what is quoted, unless it is a name in the code (see `code_names`); what
    follows ``=`` or ``:`` after a name with password, token, key or user in it, up to a
    space; all that follows ``Authorization:`` and ``Cookie:``; URLs, queries, e-mail
    addresses, paths, hosts, numbers, and long random words. Cannot know any other
    unquoted value from a word.
    """
    return _by_the_rules(_shape(text, keys, server))


def _shape(text: str, keys: Iterable[object], server: str) -> str:
    text = text[:TEXT_LENGTH].strip().partition("\n")[0]
    text = clean(_without_keys(text, keys))
    if server:
        text = text.replace(server, "<host>")
    # As many: the rules count digits. As bytes it takes a tenth of the time.
    text = text[:TEXT_LENGTH]
    shape = text.encode().translate(_ZEROS).decode()
    # The search takes longer than all of the rest.
    if "tatus" in text or "ode" in text or "HTTP" in text:
        for status in _STATUS.finditer(text):
            shape = shape[: status.start(1)] + status[1] + shape[status.end(1) :]
    return shape


def _by_the_rules(text: str) -> str:
    text = _PIPELINE.sub("Command <text> of pipeline caused error", text)
    text = without_credentials(text)
    text = _QUERY.sub("?<query>", text)
    text = _EMAIL.sub("<email>", text)
    text = _without_values(text)
    text = _HOST.sub("<host>", text)
    text = _PATH.sub("<path>", text)
    text = _TOKEN.sub("<text>", text)
    text = _HEX.sub("<n>", text)
    text = _DATE.sub("<n>", text)
    text = _NUMBER.sub(lambda match: match[1] or "<n>", text)
    text = _LIST.sub(r"\1", text)
    return _LONG.sub("<text>", text)[:MESSAGE_LENGTH].strip()


def without_credentials(text: str) -> str:
    """`text` without what is named as a secret, headers that hold one, and URLs."""
    text = _HEADER.sub(r"\1\2<secret>", text)
    text = _SECRET.sub(r"\1\2<secret>", text)
    text = _BEARER.sub(lambda match: f"{match[1] or match[2]} <secret>", text)
    return _URL.sub(_without_address, text)


def clean(text: str) -> str:
    """`text` without control, format and surrogate characters, spaces collapsed.

    They break databases (NUL, surrogates) or deceive readers (bidi, escapes).
    """
    if not text.isprintable():
        text = "".join(
            " " if unicodedata.category(character)[0] in "CZ" else character
            for character in text
        )
    return " ".join(text.split())


def shortened(text: str, length: int) -> str:
    """`text` made fit for a column, such that different texts stay different.

    What is too long or not clean ends in a hash of the whole.
    """
    fit = clean(text)
    if fit == text and len(text) <= length:
        return text
    suffix = "~" + _digest(text)[:16]
    return fit[: length - len(suffix)] + suffix


def _without_keys(text: str, keys: Iterable[object]) -> str:
    # Also the keys themselves as the server saw them, ``:1:key``, because the
    # prefix and version are behind other characters than letters or digits.
    present = {key for key in map(str, keys) if key and key in text}
    for key in sorted(present, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", "<key>", text)
    return _KEY_PREFIX.sub("<key>", text) if "<key>" in text else text


def _without_address(match: re.Match[str]) -> str:
    return f"{match[1]}://<url>" if match[1] else f"{match[2] or match[3]}: <url>"


def _without_values(text: str) -> str:
    for listed, end in _LISTS:
        last = text.rfind(end) + len(end)
        text = listed.sub("<text>", text[:last]) + text[last:]
    names = code_names.spans(text)

    def unquoted(match: re.Match[str]) -> str:
        start, end = match.span()
        inner = match[match.lastindex] if match.lastindex else None
        named = any(first <= start and end <= last for first, last in names)
        return match[0] if named or inner == "<key>" else "<text>"

    return _QUOTED.sub(unquoted, text)


def _digest(*parts: str) -> str:
    joined = "\0".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.sha256(joined).hexdigest()[:32]

"""Which quoted names are ones of the code, not of the data: by whole phrases only.

``user named 'ana'`` shows that a word before a name says nothing; what Python and
PostgreSQL say of names is known.
"""

from __future__ import annotations

import re

_Q = r"""['"][^\W\d][\w.]{0,80}['"]"""
_PHRASE = re.compile(
    rf"""(?x)
      {_Q}\ object\ (?:has\ no\ attribute\ {_Q} | attribute\ {_Q}\ is\ read-only
        | is\ not\ (?:callable|iterable|subscriptable|reversible
            |an\ iterator)
        | cannot\ be\ interpreted\ as\ an\ integer
        | do(?:es\ not|esn't)\ support\ (?:item|the\ (?:a\w+\ )?context))
    | \bproperty\ {_Q}\ of\ {_Q}\ object\ has\ no\ [sdg]etter\b
    | \btype\ object\ {_Q}\ has\ no\ attribute\ {_Q}
    | \bmodule\ {_Q}\ has\ no\ attribute\ {_Q}
    | \bNo\ module\ named\ {_Q}
    | \bcannot\ import\ name\ {_Q}\ from\ (?:partially\ initialized\ module\ )?{_Q}
    | (?:^|:\ )name\ {_Q}\ is\ not\ defined\b
    | \blocal\ variable\ {_Q}\ (?:referenced\ before|where\ it\ is\ not)\b
    | \(\)\ got\ (?:an\ unexpected\ keyword|multiple\ values\ for)\ argument\ {_Q}
    | \(\)\ missing\ \d{{1,3}}\ required\ (?:positional|keyword-only)\ arguments?:\ {_Q}
        (?:(?:,\ and|,|\ and)\ {_Q}){{0,20}}
    | ^Cannot\ resolve\ keyword\ {_Q}\ into\ field\b
    | \brelation\ {_Q}\ (?:does\ not\ exist|already\ exists)\b
    | \bcolumn\ {_Q}\ (?:of\ relation\ {_Q}\ )?(?:does\ not\ exist|already\ exists
        | violates\ not-null\ constraint)\b
    | (?:\b(?:relation|on\ table)\ {_Q}\ )?
        \bviolates\ (?:unique|check|exclusion|foreign\ key|RESTRICT\ setting\ of
        \ foreign\ key)\ constraint\ {_Q} (?:\ on\ table\ {_Q})?
    """
)


def spans(text: str) -> list[tuple[int, int]]:
    """Where `text` holds such phrases: what is quoted within them is a name."""
    return [match.span() for match in _PHRASE.finditer(text)]

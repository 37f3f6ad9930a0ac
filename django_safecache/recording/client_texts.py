"""What other memcached clients say: the words of the server, and keys around them.

A site may use pymemcache or pylibmc beside this package, or before it. Their messages
hold the key without quotes, or the server's words within some.
"""

from __future__ import annotations

import re

# pymemcache: ``b'out of memory storing object'``. A single word is the command.
_BYTES = re.compile(r"""b(?:'([^']*\s[^']*)'|"([^"]*\s[^"]*)")""")
# libmemcached: ``error 3 from memcached_get(key): (0x55d2) CONNECTION FAILURE``. What
# pylibmc 1.6 has there instead of the key is memory that was freed.
_CALL = re.compile(r"\bmemcached_\w{1,40}(?:\(.{0,1000}?\)(?=:|$))?")
# A key as Django makes it: prefix, version, key.
_MADE_KEY = re.compile(r"""(?<!\S)(?:[A-Za-z][\w.-]{0,80})?:\d{1,9}:[^\s'"]{1,1000}""")


def words(exception: str, text: str) -> str:
    """`text` of the class `exception`, without what those clients put around it."""
    client = exception.partition(".")[0]
    if client == "pymemcache":
        whole = _BYTES.fullmatch(text)
        if whole:
            text = whole[1] or whole[2]
    elif client == "pylibmc":
        text = _CALL.sub("a call", text)
    else:
        return text
    return _MADE_KEY.sub("<key>", text)

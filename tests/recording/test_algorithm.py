"""The fingerprints of version 1 of the rules, as they are stored.

A change of the rules that changes one of these makes all its problems new. If it is
wanted, raise `ALGORITHM` and start another table; if it is not, it is a mistake.
"""

from __future__ import annotations

import pytest

from django_safecache.recording.fingerprints import ALGORITHM, Cause, cause_of

VERSION_1 = {
    (
        "epipe",
        "builtins.BrokenPipeError",
        32,
        "[Errno 32] Broken pipe",
    ): "6eab1f39f48152603a77eea24bb9a4b9",
    (
        "reset",
        "builtins.ConnectionResetError",
        104,
        "[Errno 104] Connection reset by peer",
    ): "00c94ed248254c4ba574728431e98cfb",
    (
        "closed",
        "django_safecache.exceptions.ConnectionClosedError",
        None,
        "the server closed the connection",
    ): "46c000afabf1ed2cf83b4fa9a3b831d4",
    (
        "timeout",
        "builtins.TimeoutError",
        None,
        "timed out",
    ): "056015a4100f3b9cd309b80e2a627e08",
    (
        "too_large",
        "django_safecache.exceptions.ReplyError",
        None,
        "SERVER_ERROR object too large for cache",
    ): "025f729692f6f2ade4b278c51976db24",
    (
        "server_error",
        "django_safecache.exceptions.ReplyError",
        None,
        "SERVER_ERROR out of memory storing object of 4711 bytes for room:17",
    ): "c5d57ef13810a4a56874c667e2b74d60",
    (
        "unreachable",
        "socket.gaierror",
        -2,
        "no answer from cache-1:11211",
    ): "249d31d9526eda02737e6e92de22bfa7",
    (
        "application",
        "builtins.AttributeError",
        None,
        "'NoneType' object has no attribute 'room'",
    ): "55486dae43b22a8b052515fc1a2cbcde",
    (
        "application",
        "builtins.KeyError",
        None,
        "'text_messages/17'",
    ): "6c8a19ec258a673359d0f7d7742aab40",
    (
        "application",
        "pymemcache.exceptions.MemcacheServerError",
        None,
        "b'out of memory storing object 17'",
    ): "380502028e1a18f6861e0d857618cf02",
    (
        "application",
        "pylibmc.ConnectionError",
        None,
        "error 3 from memcached_get(room:17): (0x55d2) CONNECTION FAILURE,"
        "  host: 10.0.0.1:11211 -> ./src/libmemcached/io.cc:433",
    ): "a7ddfd559e982812ae9de1c6ed11458e",
}


def made(kind, exception, errno, text):
    keys = ["room:17"] if kind != "application" else []
    return cause_of(kind, exception, errno, text, keys=keys, server="10.0.0.1:11211")


class TestVersion1:
    @pytest.mark.parametrize(("told", "fingerprint"), VERSION_1.items())
    def test_its_fingerprints_stay_what_they_are(self, told, fingerprint):
        assert made(*told).fingerprint == fingerprint

    def test_they_are_all_different(self):
        assert len(set(VERSION_1.values())) == len(VERSION_1)

    def test_it_is_the_version_that_is_stored(self):
        assert made(*next(iter(VERSION_1))).algorithm == ALGORITHM == 1

    def test_a_group_of_the_sites_own_choice_stays_what_it_is(self):
        cause = Cause("any", "epipe", "", None, "").regrouped("my group")
        assert cause.fingerprint == "a236922efe0ecf0dbe2386e1485c8a20"

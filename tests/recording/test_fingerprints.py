from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.recording import fingerprints
from django_safecache.recording.fingerprints import (
    MESSAGE_LENGTH,
    cause_of,
    clean,
    scrubbed,
    shortened,
)


def fingerprint(text, kind="closed", exception="X", errno=None, **context):
    return cause_of(kind, exception, errno, text, **context).fingerprint


class TestGrouping:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("connect to 10.0.0.1:11211 failed", "connect to 10.0.0.27:11212 failed"),
            (
                "connect to cache-1:11211 failed",
                "connect to mc.prod.example:11211 failed",
            ),
            ("connect to [::1]:11211 failed", "connect to 10.0.0.1:11211 failed"),
            ("read 17 of 4096 bytes", "read 4095 of 8192 bytes"),
            ("<socket at 0x7f3a9c>", "<socket at 0x1>"),
            (
                "job 0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f lost",
                "job ffffffff-1111-4000-8000-abcdefabcdef lost",
            ),
            ("no such user 'bob'", "no such user 'alice'"),
            ("order 5 has -3 items", "order 5 has 3 items"),
            ("took 3.5 s", "took 3 s"),
            ("balance 1,234.50, too low", "balance 12, too low"),
            ("bad ids [1, 2, 3]", "bad ids [1]"),
            ("bad ids 1,2,3", "bad ids 1"),
            ("no such users: 'ana', 'bob' and 'eve'", "no such users: 'joe'"),
            ("commit ab12cd3 is gone", "commit 1234567 is gone"),
            ("the 3rd time", "the 21st time"),
            (
                "Max retries exceeded with url: /x?q=a b (Caused by X)",
                "Max retries exceeded with url: /x(1)/y (Caused by X)",
            ),
            (
                "Command # 1 (HGET cart:ana x) of pipeline caused error: WRONGTYPE",
                "Command # 12 (SET cart:5 a (b) c) of pipeline caused error: WRONGTYPE",
            ),
            ("Report of 14 Jan 2026 lost", "Report of Wednesday, 3rd March 2026 lost"),
            ("Report of May 2026 lost", "Report of Sep 3, 2026 lost"),
            (
                "session u4bq0rkzq5o0zw0c3y7q9o3e8jcj0n2d is gone",
                "session k2w9zq1x8y7v6u5t4s3r2q1p0o9n8m7l is gone",
            ),
            ("commit ab12cd3 is gone", f"commit {'ab12cd3' * 6} is gone"),
            (
                "Order 3F2504E0-4F89-11D3-9A0C-0305E82C3301 lost",
                "Order 6ba7b810-9dad-11d1-80b4-00c04fd430c8 lost",
            ),
            (
                "cannot import name 'x' from 'shop' (/srv/releases/17/shop/a.py)",
                "cannot import name 'x' from 'shop' (/srv/releases/ab/shop/a.py)",
            ),
        ],
    )
    def test_numbers_hosts_and_values_do_not_tell_problems_apart(self, one, other):
        assert fingerprint(one) == fingerprint(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("user:17", "user:18"),
            ("text_messages/343663289/hide_author=false", "kick_messages/1/x"),
            ("schlüssel", "漢字"),
            ("a.*b", "(["),
        ],
    )
    def test_neither_does_the_key_the_cache_was_called_with(self, one, other):
        texts = [f"CLIENT_ERROR bad key :1:{key} in line" for key in (one, other)]
        assert fingerprint(texts[0], keys=[one]) == fingerprint(texts[1], keys=[other])

    def test_a_known_server_is_a_host_whatever_it_looks_like(self):
        one = fingerprint("no answer from /run/mc.sock", server="/run/mc.sock")
        other = fingerprint("no answer from 10.0.0.1:11211")
        assert one == other

    def test_errno_class_kind_and_words_tell_problems_apart(self):
        causes = {
            fingerprint("text"),
            fingerprint("text", errno=32),
            fingerprint("text", errno=104),
            fingerprint("text", kind="epipe"),
            fingerprint("text", exception="Y"),
            fingerprint("other text"),
        }
        assert len(causes) == 6

    @pytest.mark.parametrize(
        "words",
        ["status ", "Status: ", "status_code=", "HTTP ", "HTTP Error ", "code "],
    )
    def test_so_does_an_http_status(self, words):
        assert scrubbed(f"got {words}404, 17") == f"got {words}404, <n>"
        assert scrubbed(f"got {words}4041 of 604") == f"got {words}<n> of <n>"

    def test_a_key_does_not_change_the_operating_systems_words(self):
        text = "[Errno 32] Broken pipe"
        with_key = fingerprint(text, errno=32, keys=["pipe"])
        assert with_key == fingerprint(text, errno=32)

    def test_a_key_is_only_replaced_as_a_whole(self):
        assert scrubbed("the table a is full", keys=["a"]) == "the table <key> is full"

    def test_what_is_before_a_key_goes_with_it(self):
        """A site may put the tenant there."""
        text = "CLIENT_ERROR bad key acme:1:room/7 in line"
        assert scrubbed(text, keys=["room/7"]) == "CLIENT_ERROR bad key <key> in line"

    def test_of_two_keys_the_longer_is_replaced(self):
        assert scrubbed("bad x:y:z", keys=["x", "x:y", "x:y:z"]) == "bad <key>"


class TestScrubbing:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("postgres://ana:pa/ss@db.example/site down", "postgres://<url> down"),
            ("https://example.com/?token=abc", "https://<url>"),
            ("password=hunter2 rejected", "password=<secret> rejected"),
            ("API-Key: 'abc def' rejected", "API-Key: <secret> rejected"),
            ("Authorization: Bearer abc.def", "Authorization: <secret>"),
            ("no account for ana@example.com here", "no account for <email> here"),
            (
                "invalid literal for int() with base 10: 'hunter'",
                "invalid literal for int() with base <n>: <text>",
            ),
            ("'session_of_ana'", "<text>"),
            (
                "'NoneType' object has no attribute 'room'",
                "'NoneType' object has no attribute 'room'",
            ),
            (
                'violates unique constraint "auth_user_key"\nDETAIL: (name)=(ana)',
                'violates unique constraint "auth_user_key"',
            ),
            ("it can't be, won't be", "it can't be, won't be"),
            ("no user 'it's ana' here", "no user <text> here"),
            (r"no user 'it\'s \"ana\"' here", "no user <text> here"),
            (
                "no “ana”; no `bob`; no «eve»; no \u2018joe\u2019",
                "no <text>; no <text>; no <text>; no <text>",
            ),
            ("no user 'ana\nmaria'", "no user <text>"),
            ('no user "ana', "no user <text>"),
            (
                "Command '['/bin/mysql', '-pana', 'x']' returned exit status 1.",
                "Command <text> returned exit status <n>.",
            ),
            (
                "Reverse for 'x' with arguments '('ana',)' not found.",
                "Reverse for <text> with arguments <text> not found.",
            ),
            (
                "('(1, \"user \\'ana\\' (using password: YES)\")', {'a': 'ana'})",
                "(<text>, {<text>: <text>})",
            ),
            ("rejected 'ana's 'x'y and ana", "rejected <text>"),
            ("Command '['/bin/mysql', '-pana', 'x", "Command <text>"),
            ("'[' was never closed: it's 'x'", "<text> was never closed: it's <text>"),
            ("no ' ana", "no <text>"),
            ("(password=ana) refused", "(password=<secret>) refused"),
            ("Cookie: theme=ana; lang=de", "Cookie: <secret>"),
            ("{'Cookie': 'sessionid=ana; x=y', 'Accept': '*'}", "{<text>: <secret>"),
            ("sent Bearer ana.maria to it", "sent Bearer <secret> to it"),
            ('{"password": "it\'s \\"ana\\" maria"}', "{<text>: <secret>}"),
            (
                r"{\"password\": \"ana maria\"} refused",
                r"{\<text>",
            ),
            ("password='ana maria", "password=<secret>"),
            ("client_secret=ana&x=1", "client_secret=<secret>"),
            ("sid: ana, sig=ana dsn=>ana", "sid: <secret>, sig=<secret> dsn=><secret>"),
            (
                "user=ana account_id: ana rejected",
                "user=<secret> account_id: <secret> rejected",
            ),
            ("GET /search/?q=ana&page=2 failed", "GET /search/?<query> failed"),
            (
                "Max retries exceeded with url: /users/ana (Caused by X)",
                "Max retries exceeded with url: <url> (Caused by X)",
            ),
            ("token_hex AKIAIOSFODNN7EXAMPLE refused", "token_hex <text> refused"),
            ("got xoxb-123456789012-abcdefabcdefghij", "got <text>"),
            (
                "next=/in%3Ftoken%3Dana%26x refused",
                "next=/in%<n>Ftoken%<n>D<secret> refused",
            ),
            (
                "cannot import name 'x' from 'shop' (/home/ana/site/shop/__init__.py)",
                "cannot import name 'x' from 'shop' (<path>)",
            ),
            ("file=/home/ana/a.py, line 3", "file=<path>, line <n>"),
            ("no /home/ana/Zoë/a%20b.", "no <path>"),
            (
                "GET /users/ana failed: /search/ and/or/not",
                "GET <path> failed: /search/ and/or/not",
            ),
            ("cache-1:80/users/ana and ./a/b", "<host><path> and ./a/b"),
            (r"no C:\Users\Ana Berg\site\a.py: lost", "no <path>: lost"),
            (r"no (c:\\Users\\ana\\a.py) or d:/ana/b", "no (<path>) or <path>"),
            (r"no \\files\ana\x.doc here", "no <path> here"),
            ("jwt eyJhbGciOiJIUzI1NiJ9xx refused", "jwt <text> refused"),
            (
                "the authentication keys of users are old",
                "the authentication keys of users are old",
            ),
            ("Mayor 3 may be Mon 4", "Mayor <n> may be Mon <n>"),
            ("x" * 65, "<text>"),
            ("2 of 3. cache-1, x+1", "<n> of <n>. cache-<n>, x+<n>"),
            ("a\x00b\x1b[31m\u202ec\ud800\td", "a b [<n>m c d"),
            ("", ""),
        ],
    )
    def test_what_is_left_of_a_text(self, text, expected):
        assert scrubbed(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "no user named 'zq'",
            "customer with name 'zq' not found",
            "user name 'zq' is not defined",
            "invalid type 'zq' of account",
            "argument 'zq' for field 'zq'",
            "field 'zq.zq' rejected",
            "'zq' object",
            "'zq' object is not available",
            "user 'zq' has no attribute 'zq'",
            'database "zq" does not exist',
            "module 'zq' of the course is full",
            "column 'zq' of the upload",
        ],
    )
    def test_a_common_word_makes_no_value_a_name(self, text):
        assert "zq" not in scrubbed(text)
        assert fingerprint(text) == fingerprint(text.replace("zq", "other"))

    @pytest.mark.parametrize(
        "name",
        [
            "password_confirmation",
            "SECRET_KEY_FALLBACKS",
            "session_identifier",
            "private_key_pem",
            "accessKey",
            "privateKey",
            "DBPass",
            "userEmail",
            "AccountNumber",
            "USER_ID",
            "spring.datasource.password",
            "a-" * 200 + "token",
            "token" + "-a" * 200,
            "passwort",
            "bearer",
            "Bearer",
        ],
    )
    @pytest.mark.parametrize(
        "sign", ["=", ": ", '": "', " := ", "=>", " = = ", "=, ", ": bearer ", "='"]
    )
    def test_a_secret_is_known_by_any_part_of_its_name(self, name, sign):
        assert "zq" not in scrubbed(f"got {name}{sign}zq")

    @pytest.mark.parametrize(
        "text",
        [
            "KeyError: lost",
            "users: all",
            "author: lost",
            "the keys: lost",
            "basic setup failed",
            "passed: all",
        ],
    )
    def test_a_word_that_only_looks_like_one_hides_nothing(self, text):
        assert scrubbed(text) == text

    @pytest.mark.parametrize("value", ["dXNlcjpwYXNz", "dXNlcjpwYXNzMQ==", "YTpi"])
    def test_credentials_need_no_header(self, value):
        assert scrubbed(f"sent Basic {value} to it") == "sent Basic <secret> to it"

    @pytest.mark.parametrize(
        "text",
        [
            "'Room' object has no attribute 'zq'",
            "type object 'Room' has no attribute 'zq'",
            "module 'shop.zq' has no attribute 'zq'",
            "No module named 'shop.zq'",
            "cannot import name 'Room' from 'shop.zq'",
            "name 'zq' is not defined",
            "NameError: name 'zq' is not defined",
            "Room.__init__() got an unexpected keyword argument 'zq'",
            'relation "shop_zq" does not exist',
            'column "zq" of relation "shop" does not exist',
            'null value in column "zq" of relation "shop" violates not-null constraint',
            'duplicate key value violates unique constraint "shop_zq"',
            'insert or update on table "a" violates foreign key constraint "zq"',
            "no such table: shop_zq",
        ],
    )
    def test_names_in_what_python_and_databases_say_are_kept(self, text):
        assert scrubbed(text) == text

    def test_all_missing_arguments_are_kept(self):
        text = "f() missing 3 required positional arguments: 'a', 'b', and 'zq'"
        assert scrubbed(text) == text.replace("3", "<n>")

    @given(st.text(max_size=3000))
    def test_any_text_comes_out_clean_and_bounded(self, text):
        message = scrubbed(text, keys=[text[:3]], server=text[:2])
        assert message == clean(message)
        assert len(message) <= MESSAGE_LENGTH

    @given(st.text(max_size=200))
    def test_scrubbing_what_is_scrubbed_leaves_no_digit(self, text):
        assert not any(character in "0123456789" for character in scrubbed(text))

    @pytest.mark.parametrize(
        "unit",
        [
            *("a", "a-", "a.", "1.", "a:", "'", '"', "@", "a@", "token", "=", "://"),
            *("' \\", "'[", "{'", "'(", '\\"', "/a", "a/b ", "C:\\", "with url: "),
            *("Command # 1 (", "status ", "1 Jan ", "A1", "`", "%3D"),
        ],
    )
    def test_no_text_takes_long(self, unit):
        started = time.perf_counter()
        scrubbed(unit * 100_000, keys=[unit] * 500)
        # Quadratic time would be minutes; this is for a machine under load.
        assert time.perf_counter() - started < 5

    @pytest.mark.parametrize(
        "unit", ["' \\", "'[", "'(", "'{", "\\' ", "' \"", "`", "a'"]
    )
    def test_quotes_take_no_quadratic_time(self, unit, monkeypatch):
        """Of texts that are not cut; it would be minutes."""
        monkeypatch.setattr(fingerprints, "TEXT_LENGTH", 10**6)
        started = time.process_time()
        scrubbed(unit * 30_000)
        assert time.process_time() - started < 30


class TestShortening:
    def test_what_fits_is_kept(self):
        assert shortened("10.0.0.1:11211", 255) == "10.0.0.1:11211"

    @given(st.text(max_size=80), st.text(max_size=80))
    def test_different_texts_stay_different(self, one, other):
        assert (shortened(one, 40) == shortened(other, 40)) is (one == other)

    @given(st.text(max_size=300))
    def test_the_result_fits_and_can_be_stored(self, text):
        short = shortened(text, 40)
        assert len(short) <= 40
        assert short == clean(short) or short == text
        assert "\0" not in short
        short.encode()

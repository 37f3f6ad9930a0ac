from __future__ import annotations

import os

import pytest

from django_safecache.testing.commands import Commands
from django_safecache.testing.requests import Request, Upload, parse
from django_safecache.testing.store import Store


@pytest.fixture
def commands() -> Commands:
    return Commands(Store(clock=lambda: 1_700_000_000.5), "1.6.18")


def answer(commands: Commands, line: bytes, body: bytes = b"") -> bytes:
    return b"".join(commands.execute(parse(line), body).chunks)


def stats(commands: Commands) -> dict[str, str]:
    lines = answer(commands, b"stats").decode().split("\r\n")
    return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT"))


class TestParse:
    def test_a_storage_line_announces_its_body(self):
        assert parse(b"cas k 5 60 3 9 noreply\r\n") == Request(
            "cas",
            [b"cas", b"k", b"5", b"60", b"3", b"9", b"noreply"],
            noreply=True,
            upload=Upload(b"k", flags=5, exptime=60, length=3, cas=9),
        )

    @pytest.mark.parametrize("line", [b"", b"\r\n", b"\n", b"  \n", b"\0get a\r\n"])
    def test_an_empty_line_is_an_unknown_command(self, line):
        assert (parse(line).name, parse(line).error) == ("unknown", "ERROR")

    def test_what_follows_a_nul_is_ignored(self):
        assert parse(b"get a\0b\r\n").words == [b"get", b"a"]

    def test_commands_are_lower_case(self):
        assert parse(b"GET a\r\n").error == "ERROR"

    def test_noreply_is_a_key_where_a_command_must_answer(self):
        assert parse(b"get noreply\r\n").noreply is False
        assert parse(b"delete noreply\r\n").noreply is False
        assert parse(b"delete a noreply\r\n").noreply is True
        assert parse(b"flush_all noreply\r\n").noreply is True

    @pytest.mark.parametrize(
        "line",
        [
            b"set a x 0 1",
            b"set a 0 x 1",
            b"set a 0 0 x",
            b"set a 0 0 -1",
            b"set a 0 0 2147483646",
            b"cas a 0 0 1 x",
            b"set " + b"k" * 251 + b" 0 0 1",
        ],
    )
    def test_a_malformed_storage_line_announces_no_body(self, line):
        request = parse(line)
        assert request.upload is None
        assert request.error == "CLIENT_ERROR bad command line format"


class TestReplies:
    def test_a_get_answers_hits_in_the_order_asked_each_time_asked(self, commands):
        answer(commands, b"set a 7 0 1", b"x\r\n")
        assert answer(commands, b"get b a a") == (
            b"VALUE a 7 1\r\nx\r\nVALUE a 7 1\r\nx\r\nEND\r\n"
        )

    def test_gets_tells_the_cas(self, commands):
        answer(commands, b"set a 0 0 1", b"x\r\n")
        assert answer(commands, b"gets a") == b"VALUE a 0 1 1\r\nx\r\nEND\r\n"

    def test_gat_touches_what_it_gets(self):
        now = [0.0]
        commands = Commands(Store(clock=lambda: now[0]), "")
        answer(commands, b"set a 0 1 1", b"x\r\n")
        assert answer(commands, b"gat 10 a") == b"VALUE a 0 1\r\nx\r\nEND\r\n"
        now[0] = 9
        assert answer(commands, b"get a") == b"VALUE a 0 1\r\nx\r\nEND\r\n"

    def test_a_key_of_251_bytes_spoils_a_whole_get(self, commands):
        answer(commands, b"set a 0 0 1", b"x\r\n")
        reply = commands.execute(parse(b"get a " + b"k" * 251))
        assert b"".join(reply.chunks) == b"CLIENT_ERROR bad command line format\r\n"
        assert reply.cancels

    def test_a_body_without_crlf_is_a_bad_data_chunk(self, commands):
        assert answer(commands, b"set a 0 0 1", b"xyz") == (
            b"CLIENT_ERROR bad data chunk\r\n"
        )

    def test_a_set_that_is_too_large_loses_the_old_value(self, commands):
        answer(commands, b"set a 0 0 1", b"x\r\n")
        assert answer(commands, b"set a 0 0 2000000") == (
            b"SERVER_ERROR object too large for cache\r\n"
        )
        assert answer(commands, b"get a") == b"END\r\n"

    @pytest.mark.parametrize("command", [b"add", b"replace", b"append", b"prepend"])
    def test_other_commands_that_are_too_large_keep_it(self, commands, command):
        answer(commands, b"set a 0 0 1", b"x\r\n")
        answer(commands, command + b" a 0 0 2000000")
        assert answer(commands, b"get a") == b"VALUE a 0 1\r\nx\r\nEND\r\n"

    def test_noreply_is_silent_even_about_errors(self, commands):
        assert answer(commands, b"incr a x noreply") == b""
        assert answer(commands, b"set a 0 0 2000000 noreply") == b""

    def test_a_wrong_number_of_words_is_answered_all_the_same(self, commands):
        assert answer(commands, b"touch a noreply noreply noreply") == b"ERROR\r\n"

    def test_quit_closes_and_says_nothing(self, commands):
        reply = commands.execute(parse(b"quit"))
        assert (b"".join(reply.chunks), reply.closes) == (b"", True)


class TestStats:
    def test_the_general_ones_are_there(self, commands):
        answer(commands, b"set a 0 0 1", b"x\r\n")
        answer(commands, b"get a b")
        told = stats(commands)
        assert told["pid"] == str(os.getpid())
        assert told["time"] == "1700000000"
        assert told["version"] == "1.6.18"
        counted = {
            "uptime": "0",
            "cmd_get": "2",
            "cmd_set": "1",
            "get_hits": "1",
            "get_misses": "1",
            "curr_items": "1",
            "total_items": "1",
            "bytes": "61",
            "evictions": "0",
            "limit_maxbytes": "67108864",
            "threads": "1",
        }
        assert {name: told[name] for name in counted} == counted

    def test_reset_keeps_what_is_open(self, commands):
        commands.store.stats["curr_connections"] = 3
        answer(commands, b"get a")
        assert answer(commands, b"stats reset") == b"RESET\r\n"
        told = stats(commands)
        assert (told["curr_connections"], told["cmd_get"]) == ("3", "0")

    def test_settings_tell_the_item_limit(self, commands):
        assert b"STAT item_size_max 1048576\r\n" in answer(commands, b"stats settings")

    @pytest.mark.parametrize("topic", [b"items", b"slabs", b"sizes", b"conns"])
    def test_other_topics_are_empty(self, commands, topic):
        assert answer(commands, b"stats " + topic) == b"END\r\n"

    def test_an_unknown_topic_is_an_error(self, commands):
        assert answer(commands, b"stats nothing") == b"ERROR\r\n"

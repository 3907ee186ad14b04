from __future__ import annotations

import logging
import warnings
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
import structlog

from server.observe.redact import REDACTED, redact, redact_text
from tests.observe.conftest import Log


def test_a_line_says_when_who_and_what(log: Log) -> None:
    structlog.get_logger("server.turns").info("turn_started", turn=UUID(int=7), steps=3, path=Path("a/b"))
    (line,) = log.lines
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {
        "event": "turn_started",
        "level": "info",
        "logger": "server.turns",
        "turn": str(UUID(int=7)),
        "steps": 3,
        "path": "a/b",
    }


def test_what_a_task_has_bound_is_on_all_its_lines(log: Log) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1", session_id="s1"):
        structlog.get_logger("a").warning("own")
        logging.getLogger("aiohttp.server").error("foreign %s", "words")
    assert [(line["event"], line["request_id"], line["session_id"]) for line in log.lines] == [
        ("own", "r1", "s1"),
        ("foreign words", "r1", "s1"),
    ]


def test_libraries_and_warnings_are_routed_through_it(log: Log) -> None:
    logging.getLogger("asyncio").warning("slow callback")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in log.lines] == ["asyncio", "py.warnings"]
    assert "old thing" in log.lines[1]["event"]


def test_the_level_holds_for_ours_and_theirs(log: Log) -> None:
    log.configure(level="warning")
    for name in ("server.rest", "aiohttp.access"):
        structlog.get_logger(name).info("no")
        logging.getLogger(name).info("no")
        structlog.get_logger(name).warning("yes")
    assert [line["event"] for line in log.lines] == ["yes", "yes"]


def test_configuring_again_replaces_and_does_not_repeat(log: Log) -> None:
    log.configure()
    log.configure()
    structlog.get_logger("a").info("once")
    assert len(log.lines) == 1


def test_the_console_format_is_for_reading(log: Log) -> None:
    log.configure(format="console")
    structlog.get_logger("server.app").info("listening", port=8080)
    assert "listening" in log.text
    assert "port=8080" in log.text
    assert not log.text.startswith("{")


def test_auto_is_json_where_nobody_watches(log: Log) -> None:
    log.configure(format="auto")
    structlog.get_logger("a").info("x")
    assert log.lines[0]["event"] == "x"


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exception_is_logged_whole_but_without_the_values_of_variables(log: Log, style: str) -> None:
    log.configure(format=style)

    def fail() -> None:
        local_words = "what somebody wrote"
        raise ValueError(f"{len(local_words)} characters")

    try:
        fail()
    except ValueError:
        structlog.get_logger("a").exception("failed")
        logging.getLogger("b").exception("failed too")
    assert log.text.count("ValueError: 19 characters") == 2
    assert "in fail" in log.text
    assert "what somebody wrote" not in log.text


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "Authorization",
        "content",
        "text",
        "arguments",
        "refresh_token",
        "Set-Cookie",
        "password",
        "api_key",
        "client_secret",
        "payload",
        "Sec-WebSocket-Protocol",
        "query",
    ],
)
@pytest.mark.parametrize("style", ["json", "console"])
def test_credentials_and_words_never_reach_the_log(log: Log, style: str, name: str) -> None:
    log.configure(format=style)
    values = {name: "s3cret"}
    structlog.get_logger("a").info("e", **values, nested={"deep": [values, (values,)]})
    structlog.get_logger("a").bind(**values).info("e")
    with structlog.contextvars.bound_contextvars(**values):
        logging.getLogger("b").info("e")
    assert "s3cret" not in log.text
    assert log.text.count("[redacted]") == 5


def test_what_only_looks_alike_is_kept(log: Log) -> None:
    structlog.get_logger("a").info("usage", prompt_tokens=7, contents=2, result_count=1, none=None)
    line = log.lines[0]
    assert (line["prompt_tokens"], line["contents"], line["result_count"], line["none"]) == (7, 2, 1, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {REDACTED}"),
        ("offered parley.v1.json, parley.bearer.abc-1_~", f"offered parley.v1.json, parley.bearer.{REDACTED}"),
        ("GET /sessions/x/ws?token=abc&after=1 HTTP/1.1", f"GET /sessions/x/ws?{REDACTED} HTTP/1.1"),
        ("at http://localhost:8080/?ticket=abc.", f"at http://localhost:8080/?{REDACTED}"),
        ("postgresql://ada:pw@db/parley", f"postgresql://ada:{REDACTED}@db/parley"),
        ("is it there? yes=no", "is it there? yes=no"),
        ("plain words, 12:30, a@b", "plain words, 12:30, a@b"),
        ("BEARER abc", f"BEARER {REDACTED}"),
        ("redis://:pw@cache/0", f"redis://:{REDACTED}@cache/0"),
    ],
)
def test_texts_are_searched_for_credentials(text: str, expected: str) -> None:
    assert redact_text(text) == expected


def test_whatever_is_logged_is_searched() -> None:
    class Thing(msgspec.Struct):
        header: str

    event = redact(None, "info", {"thing": Thing("Bearer abc"), "raw": b"\x00\xff", "deep": [[[[[[[[1]]]]]]]]})
    assert event["thing"] == f"Thing(header='Bearer {REDACTED}')"
    assert event["raw"] == "<2 bytes>"
    assert REDACTED in str(event["deep"])


def test_a_line_is_one_line_and_valid_json_whatever_is_in_it(log: Log) -> None:
    structlog.get_logger("a").info("two\nlines", value="\x1b[31m\r\n\x00")
    assert len(log.text.splitlines()) == 1
    assert log.lines[0]["value"] == "\x1b[31m\r\n\x00"

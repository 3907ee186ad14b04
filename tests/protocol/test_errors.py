from __future__ import annotations

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from protocol.events import CommandError, Disconnect


def test_codes_and_close_codes_are_unique() -> None:
    assert len({error.code for error in ErrorCode}) == len(ErrorCode)
    closes = [error.close for error in ErrorCode if error.close is not None]
    assert len(set(closes)) == len(closes)


@pytest.mark.feature("T04")
@pytest.mark.parametrize("error", [error for error in ErrorCode if error.close is not None])
def test_the_range_of_a_close_code_says_whether_to_reconnect(error: ErrorCode) -> None:
    assert error.close is not None
    assert 4000 <= error.close < 5000
    assert error.may_reconnect == (error.close < 4500)
    assert ErrorCode.of_close(error.close) is error


@pytest.mark.feature("T04")
@pytest.mark.parametrize("error", ["shutdown", "slow_consumer", "token_expired", "stale", "rate_limited"])
def test_passing_troubles_reconnect(error: str) -> None:
    found = ErrorCode.of(error)
    assert found is not None
    assert found.may_reconnect


@pytest.mark.feature("T04")
@pytest.mark.parametrize("error", ["unauthorized", "forbidden", "session_gone", "protocol_error", "replaced"])
def test_lasting_troubles_do_not(error: str) -> None:
    found = ErrorCode.of(error)
    assert found is not None
    assert not found.may_reconnect


def test_unknown_codes_are_nobody() -> None:
    assert ErrorCode.of("from_the_future") is None
    assert ErrorCode.of_close(1000) is None


@pytest.mark.parametrize("error", ErrorCode)
def test_every_code_has_an_http_error_status_and_a_title(error: ErrorCode) -> None:
    assert 400 <= error.status < 600
    assert error.title
    assert error.code == error.name.lower()


def test_a_problem_says_everything_that_is_known() -> None:
    error = ParleyError(ErrorCode.RATE_LIMITED, "10 a second", path="$.content", retry_after=1.5, id="c1")
    assert error.to_problem() == {
        "type": "urn:parley:error:rate_limited",
        "title": "Too many requests",
        "status": 429,
        "detail": "10 a second",
        "code": "rate_limited",
        "path": "$.content",
        "retry_after": 1.5,
        "id": "c1",
    }


def test_a_problem_leaves_out_what_is_not() -> None:
    problem = ParleyError(ErrorCode.NOT_FOUND, "no such session").to_problem()
    assert set(problem) == {"type", "title", "status", "detail", "code"}


def test_an_error_reads_well_in_a_log() -> None:
    assert str(ParleyError(ErrorCode.INVALID, "too long", path="$.id")) == "invalid: too long (at $.id)"
    assert str(ParleyError(ErrorCode.BUSY, "a turn is running")) == "busy: a turn is running"


def test_the_same_refusal_as_an_event() -> None:
    error = ParleyError(ErrorCode.RATE_LIMITED, "10 a second", path="$.content", retry_after=1.5, id="c1")
    assert msgspec.to_builtins(CommandError.of(error)) == {
        "id": "c1",
        "code": "rate_limited",
        "message": "10 a second",
        "path": "$.content",
        "retry_after_ms": 1500,
    }


@pytest.mark.feature("T04")
def test_a_disconnect_gives_the_advice_of_its_code() -> None:
    assert msgspec.to_builtins(Disconnect.of(ErrorCode.SHUTDOWN, retry_after=0.25)) == {
        "code": "shutdown",
        "reason": "The server is going away",
        "reconnect": True,
        "retry_after_ms": 250,
    }
    assert not Disconnect.of(ErrorCode.REPLACED, "elsewhere").reconnect

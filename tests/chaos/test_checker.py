"""Who checks the checker: it must notice each thing that it is there to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.support.checker import Ledger, MismatchError, View

SESSION = "0190a000-0000-7000-8000-000000000000"


def frame(
    event_type: str, payload: dict[str, Any], seq: int | None = None, at: str = "2026-01-02T03:04:05.678Z"
) -> bytes:
    place = {} if seq is None else {"seq": seq, "cursor": f"e.{seq}"}
    event = {"event_type": event_type, "session_id": SESSION, "timestamp": at, **place, "payload": payload}
    return msgspec.json.encode(event)


def connected(cursor: str = "e.0") -> bytes:
    return frame("connected", {"cursor": cursor})


def sync(begin: str = "e.0", through: str = "e.0") -> bytes:
    return frame("sync", {"from": begin, "through": through})


def delta(text: str, offset: int = 0, attempt: int = 1) -> bytes:
    return frame(
        "message_delta", {"message_id": "m", "attempt": attempt, "part": "content", "offset": offset, "text": text}
    )


def created(content: str, seq: int = 1, attempt: int = 1, **more: Any) -> bytes:
    body = {"message_id": "m", "role": "assistant", "content": content, "attempt": attempt}
    return frame("message_created", {**body, **more}, seq)


def view(*frames: bytes, ledger: Ledger | None = None) -> View:
    one = View(ledger or Ledger(SESSION), "client")
    for each in frames:
        one.take(each)
    return one


def test_what_is_right_passes() -> None:
    one = view(connected(), sync(), delta("on"), delta("ne 𝄞", 1), created("one 𝄞"), frame("task_completed", {}, 2))
    one.lost()
    for each in (connected("e.2"), sync("e.2", "e.2"), frame("task_started", {}, 3)):
        one.take(each)
    assert (one.seq, one.cursor, one.connections, one.unfinished) == (3, "e.3", 2, set())


def test_a_later_attempt_begins_afresh_and_a_message_may_be_joined_late() -> None:
    assert not view(
        connected(), sync(), delta("wrong"), delta("ri", attempt=2), delta("ght", 2, 2), created("right", attempt=2)
    ).unfinished
    assert not view(connected(), sync(), delta("on"), created("one two", attempt=2)).unfinished
    one = view(connected(), sync(), delta("one"))
    one.lost()
    one.take(connected())
    one.take(created("one two"))
    assert not one.unfinished


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([frame("task_started", {}, 1)], id="an event before connected"),
        pytest.param([connected(), connected()], id="connected twice"),
        pytest.param([connected("e.1")], id="another cursor than asked for"),
        pytest.param([connected(), frame("task_started", {}, 2)], id="a gap"),
        pytest.param([connected(), frame("a", {}, 1), frame("a", {}, 1)], id="an event twice"),
        pytest.param([connected(), frame("a", {}, 1), sync()], id="sync at another place"),
        pytest.param([connected(), delta("one")], id="a delta before sync"),
        pytest.param([connected(), sync(), delta("one", 1)], id="a gap in a text"),
        pytest.param([connected(), sync(), delta("one"), delta("en", 1)], id="a delta against the text"),
        pytest.param([connected(), sync(), delta("one", attempt=2), delta("one")], id="an attempt that is over"),
        pytest.param([connected(), sync(), delta("one"), created("two")], id="another message than was streamed"),
        pytest.param([connected(), sync(), delta("one"), created("one two")], id="a text whose end was not streamed"),
        pytest.param(
            [connected(), sync(), delta("o"), created("o", reasoning="why")], id="a part that was not streamed"
        ),
        pytest.param([connected(), sync(), delta("one", attempt=3), created("one", attempt=2)], id="a lower attempt"),
        pytest.param([connected(), sync(), created("one"), delta("one")], id="a delta after the end"),
        pytest.param([connected(), sync(), created("one"), created("one", 2)], id="a message twice"),
        pytest.param([connected(), frame("resync_required", {"reason": "ahead"})], id="a cursor refused"),
    ],
)
def test_what_is_wrong_fails(frames: list[bytes]) -> None:
    *before, last = frames
    one = view(*before)
    with pytest.raises(MismatchError):
        one.take(last)


def test_a_message_goes_on_under_a_new_attempt_when_its_server_is_gone() -> None:
    one = view(connected(), sync(), delta("one"))
    one.lost()
    one.ledger.server_ended()
    for each in (connected(), sync(), delta("o", attempt=2)):
        one.take(each)
    one.lost()
    one.ledger.server_ended()
    one.take(connected())
    one.take(sync())
    with pytest.raises(MismatchError):
        one.take(delta("one", attempt=2))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: frame("a", {**body, "x": 2}, 1),
        lambda body: frame("b", body, 1),
        lambda body: frame("a", body, 1, at="2026-01-02T03:04:05.679Z"),
    ],
)
def test_two_clients_must_be_shown_the_same(change: Callable[[dict[str, Any]], bytes]) -> None:
    ledger = Ledger(SESSION)
    view(connected(), frame("a", {"x": 1}, 1), ledger=ledger)
    view(connected(), frame("a", {"x": 1}, 1), ledger=ledger)
    with pytest.raises(MismatchError):
        view(connected(), change({"x": 1}), ledger=ledger)


def test_a_repeat_must_be_answered_as_before() -> None:
    ledger = Ledger(SESSION)
    ledger.acknowledged("c", {"id": "c", "seq": 1})
    ledger.acknowledged("c", {"id": "c", "seq": 1})
    with pytest.raises(MismatchError):
        ledger.acknowledged("c", {"id": "c", "seq": 4})

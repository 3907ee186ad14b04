"""Where pages end, and where copies do: small pieces, whatever they are given."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, ParleyError
from protocol.events import ToolCallRequest
from server.rest.places import place, place_of
from server.turns.forking import whole_steps
from storage.audit import AuditKey
from storage.forks import SourceMessage
from storage.metrics import RequestKey

_NOW = datetime(2026, 1, 2, tzinfo=UTC)


@given(
    st.one_of(
        st.uuids(),
        st.builds(AuditKey, st.integers(0, 2**63 - 1)),
        st.builds(RequestKey, st.just(_NOW), st.uuids(), st.integers(0, 99), st.just(1)),
    )
)
def test_a_place_is_read_as_it_was_written(key: Any) -> None:
    assert place_of(place(key), type(key)) == key


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)))
def test_no_other_text_is_a_place_or_an_accident(text: str) -> None:
    for kind in (UUID, RequestKey):
        with suppress(ParleyError):
            assert isinstance(place_of(text, kind), kind)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (["2026-01-01T00:00:00", UUID(int=1), 1, 1], RequestKey),
        ([_NOW, UUID(int=1), 2**31, 1], RequestKey),
        ([_NOW, UUID(int=1), 1, -1], RequestKey),
        ([_NOW, UUID(int=1)], RequestKey),
        ([2**63], AuditKey),
        (7, AuditKey),
        ("7", UUID),
    ],
)
def test_a_place_that_the_database_could_not_look_for_is_refused(key: Any, kind: type[Any]) -> None:
    with pytest.raises(ParleyError) as caught:
        place_of(place(key), kind)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID, "?after")


def message(
    number: int, role: str, calls: tuple[int, ...] = (), answers: int = 0, reason: str | None = None
) -> SourceMessage:
    requests = [ToolCallRequest(call_id=str(UUID(int=call)), name="t", arguments="{}") for call in calls]
    return SourceMessage(
        message_id=UUID(int=number),
        seq=number,
        role=role,
        content="",
        reasoning=None,
        name=None,
        call_id=UUID(int=answers) if answers else None,
        tool_calls=msgspec.json.encode(requests) if calls else None,
        agent_type="a" if role == "assistant" else None,
        finish_reason=reason,
        created_at=_NOW,
    )


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        ([], 0),
        ([message(1, "user")], 1),
        ([message(1, "user"), message(2, "assistant", (7,))], 1),
        ([message(1, "user"), message(2, "assistant", (7,)), message(3, "tool", answers=7)], 3),
        ([message(1, "user"), message(2, "assistant", (7, 8)), message(3, "tool", answers=8)], 1),
        # What was cut short asked nobody to run anything.
        ([message(1, "user"), message(2, "assistant", (7,), reason="cancelled")], 2),
        # An earlier step is as it is: only at the end something can be missing that is yet to come.
        ([message(1, "assistant", (7,)), message(2, "assistant", (8,)), message(3, "tool", answers=8)], 3),
    ],
)
def test_a_copy_ends_with_whole_steps(messages: list[SourceMessage], kept: int) -> None:
    assert list(whole_steps(messages)) == messages[:kept]

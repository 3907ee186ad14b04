from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cursor import Cursor
from protocol.envelope import Encoding, Event, decode_event, payload_json, payload_msgpack
from protocol.errors import ErrorCode, ParleyError
from protocol.events import (
    EVENT_NAMES,
    EVENTS,
    Connected,
    Heartbeat,
    MessageCreated,
    Payload,
    Sync,
    TaskCompleted,
    ToolResultEvent,
    Usage,
)
from tests.protocol.strategies import EVENT_STRATEGIES, TEXT, few, payloads

ENCODINGS: list[Encoding] = ["json", "msgpack"]
both = pytest.mark.parametrize("encoding", ENCODINGS)

SESSION = "018f0000-0000-7000-8000-00000000000a"
TIME = "2026-01-02T03:04:05.678Z"
ID = UUID("018f0000-0000-7000-8000-000000000001")


def encoded(event: Event, encoding: Encoding) -> bytes:
    return event.json if encoding == "json" else event.msgpack


def plain(data: bytes, encoding: Encoding) -> Any:
    return json.loads(data) if encoding == "json" else msgspec.msgpack.decode(data)


# --- the table


def test_each_kind_of_event_is_where_it_belongs() -> None:
    kinds = {
        kind: {row.name for row in EVENTS.values() if row.kind == kind} for kind in ("delta", "transient", "control")
    }
    assert kinds == {
        "delta": {"message_delta"},
        "transient": {
            "agent_status_changed",
            "presence_changed",
            "approval_timeout_warning",
            "tool_progress",
            "warning",
        },
        "control": {"connected", "sync", "ack", "command_error", "resync_required", "disconnect", "heartbeat"},
    }


def test_names_and_payloads_belong_together() -> None:
    assert len(EVENT_NAMES) == len(EVENTS)
    for name, row in EVENTS.items():
        assert row.name == name
        assert EVENT_NAMES[row.payload] == name


def test_every_event_says_what_it_tells() -> None:
    for row in EVENTS.values():
        assert row.description.endswith(".")
        # msgspec gives structs without a docstring one that lists their fields.
        assert row.description == " ".join((row.payload.__doc__ or "").split())


def test_no_event_has_a_name_that_browsers_take_for_their_own() -> None:
    assert not {"error", "open", "message", "close"} & set(EVENTS)


# --- payloads


@pytest.mark.feature("S02")
def test_a_message_has_its_four_fields_and_only_those_that_are_there() -> None:
    message = MessageCreated(message_id=ID, role="user", content="", timestamp=TIME)
    assert json.loads(payload_json(message)) == {
        "message_id": str(ID),
        "role": "user",
        "content": "",
        "timestamp": TIME,
    }


def test_usage_is_there_also_when_nothing_was_used() -> None:
    done = TaskCompleted(turn_id=ID, status="completed", usage=Usage(), steps=1, duration_ms=0)
    assert json.loads(payload_json(done))["usage"] == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "cost": None,
    }


def test_sync_says_from() -> None:
    assert payload_json(Sync(from_="1.2", through="1.9")) == b'{"from":"1.2","through":"1.9"}'


@both
@pytest.mark.parametrize("name", EVENT_STRATEGIES)
@few
@given(data=st.data())
def test_every_event_survives_a_round_trip(encoding: Encoding, name: str, data: st.DataObject) -> None:
    payload = data.draw(EVENT_STRATEGIES[name])
    envelope = decode_event(encoded(Event(name, SESSION, TIME, payload_json(payload)), encoding), encoding)
    assert (envelope.event_type, envelope.session_id, envelope.timestamp) == (name, SESSION, TIME)
    assert (envelope.seq, envelope.cursor) == (None, None)
    assert envelope.decode(encoding) == payload


@given(payloads())
def test_both_encodings_say_the_same_in_the_same_order(sample: tuple[str, Payload]) -> None:
    name, payload = sample
    event = Event(name, SESSION, TIME, payload_json(payload), cursor=Cursor("1", 7))
    as_json, as_msgpack = json.loads(event.json), msgspec.msgpack.decode(event.msgpack)
    assert as_json == as_msgpack
    assert list(as_json) == list(as_msgpack)
    assert list(as_json["payload"]) == list(as_msgpack["payload"])


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400, -(10**400)])
def test_integers_that_messagepack_does_not_have_become_doubles(number: int) -> None:
    payload = payload_json(
        ToolResultEvent(call_id="t", turn_id=ID, name="x", executor="server", result={"a": [number, 1]})
    )
    result = msgspec.msgpack.decode(payload_msgpack(payload))["result"]
    assert result["a"][1] == 1
    assert isinstance(result["a"][0], float)
    assert result["a"][0] == pytest.approx(max(min(number, int(1.7976931348623157e308)), -int(1.7976931348623157e308)))


# --- the envelope


@pytest.mark.feature("S03")
@both
def test_the_envelope_has_four_keys_and_two_more_when_durable(encoding: Encoding) -> None:
    passing = plain(encoded(Event("heartbeat", SESSION, TIME, payload_json(Heartbeat())), encoding), encoding)
    assert list(passing.items()) == [
        ("event_type", "heartbeat"),
        ("session_id", SESSION),
        ("timestamp", TIME),
        ("payload", {}),
    ]
    durable = Event("session_updated", SESSION, TIME, b'{"title":"a"}', cursor=Cursor("e", 3))
    assert list(plain(encoded(durable, encoding), encoding).items()) == [
        ("event_type", "session_updated"),
        ("session_id", SESSION),
        ("timestamp", TIME),
        ("seq", 3),
        ("cursor", "e.3"),
        ("payload", {"title": "a"}),
    ]


@pytest.mark.feature("T02")
@given(payloads(), st.integers(1, 2**63 - 1))
def test_a_replay_is_byte_for_byte_the_first_delivery(sample: tuple[str, Payload], seq: int) -> None:
    name, payload = sample
    stored = payload_json(payload)
    first, again = (Event(name, SESSION, TIME, bytes(stored), cursor=Cursor("1", seq)) for _ in range(2))
    assert first.json == again.json
    assert first.msgpack == again.msgpack
    assert first.json is first.json
    assert first.msgpack is first.msgpack
    assert first.size == len(first.json)
    # The stored bytes are in there untouched.
    assert first.json.endswith(b'"payload":' + stored + b"}")


@given(TEXT)
def test_an_encoded_event_is_one_line(text: str) -> None:
    message = MessageCreated(message_id=ID, role="user", content=text, timestamp=TIME)
    data = Event("message_created", SESSION, TIME, payload_json(message)).json
    assert not {10, 13, 0} & set(data)


def test_only_what_moves_the_cursor_has_an_id_for_event_streams() -> None:
    assert Event("heartbeat", SESSION, TIME, b"{}").sse_id is None
    assert Event("session_updated", SESSION, TIME, b"{}", cursor=Cursor("1", 2)).sse_id == "1.2"
    connected = Event("connected", SESSION, TIME, b"{}", sse_id="1.2")
    assert (connected.sse_id, connected.seq, connected.cursor) == ("1.2", None, None)
    assert b'"cursor"' not in connected.json


# --- tolerance


@pytest.mark.feature("S07")
@both
def test_clients_pass_over_what_they_do_not_know(encoding: Encoding) -> None:
    value = {
        "event_type": "from_the_future",
        "session_id": SESSION,
        "timestamp": TIME,
        "seq": 4,
        "cursor": "1.4",
        "new_key": [1],
        "payload": {"anything": {"at": "all"}},
    }
    data = json.dumps(value).encode() if encoding == "json" else msgspec.msgpack.encode(value)
    envelope = decode_event(data, encoding)
    # The cursor moves on although the event says nothing.
    assert (envelope.event_type, envelope.seq, envelope.cursor) == ("from_the_future", 4, "1.4")
    assert envelope.decode(encoding) is None


@pytest.mark.feature("S07")
@both
@given(sample=payloads())
def test_new_fields_break_no_old_client(encoding: Encoding, sample: tuple[str, Payload]) -> None:
    name, payload = sample
    newer = json.loads(payload_json(payload)) | {"a_new_field": {"x": [1]}}
    event = Event(name, SESSION, TIME, json.dumps(newer).encode())
    assert decode_event(encoded(event, encoding), encoding).decode(encoding) == payload


@both
def test_a_known_type_with_another_payload_is_a_broken_server(encoding: Encoding) -> None:
    event = Event("message_created", SESSION, TIME, b'{"message_id":5}')
    envelope = decode_event(encoded(event, encoding), encoding)
    with pytest.raises(ParleyError) as caught:
        envelope.decode(encoding)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


@both
@given(data=st.binary(max_size=40))
def test_any_bytes_are_an_event_or_a_protocol_error(encoding: Encoding, data: bytes) -> None:
    with pytest.raises(ParleyError) as caught:
        decode_event(data, encoding)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_text_frames_are_read_as_text() -> None:
    data = Event("heartbeat", SESSION, TIME, b"{}").json
    assert decode_event(data.decode()).decode() == Heartbeat()


def test_connected_tells_all_that_a_client_needs() -> None:
    required = {field.encode_name for field in msgspec.structs.fields(Connected) if field.required}
    assert required >= {"client_id", "cursor", "session", "limits", "heartbeat_interval_ms", "agent", "clients"}

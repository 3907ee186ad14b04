"""What goes over the bus: within NOTIFY's bounds whatever is said, and harmless whoever says it."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from protocol.delta import merge
from protocol.events import MessageDelta, PresenceChanged
from protocol.parts import ClientInfo
from server.bus.packets import (
    Bye,
    Closed,
    Fragment,
    Hello,
    Hint,
    Item,
    Look,
    Piece,
    Stir,
    Transient,
    Want,
    Writing,
    decode_item,
    decode_packet,
    encode_item,
    pack,
    payload_of,
    pieces,
)
from storage.listen import MAX_PAYLOAD

ME, SESSION, MESSAGE = UUID(int=1 << 64), UUID(int=2 << 64), UUID(int=3 << 64)
ITEMS: list[Item] = [
    Hint(SESSION, 7),
    Piece(SESSION, MESSAGE, 1, "arguments", "call", 12, "text"),
    Closed(SESSION, MESSAGE, 2),
    Transient(SESSION, "warning", Raw(b'{"code":"c","message":"m"}')),
    Stir(MESSAGE),
    Want(SESSION, text=True),
    Writing(SESSION),
    Hello(),
    Bye(),
    Look(),
    Fragment("piece", last=True),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_items_come_back_as_they_were(item: Item) -> None:
    (payload,) = pack(ME, [encode_item(item)], MAX_PAYLOAD)
    packet = decode_packet(payload)
    assert packet is not None
    assert packet.origin == ME
    assert [decode_item(raw) for raw in packet.items] == [item]


def test_many_items_share_a_payload_and_keep_their_order() -> None:
    items = [encode_item(Hint(UUID(int=number), number)) for number in range(1_000)]
    payloads = list(pack(ME, items, MAX_PAYLOAD))
    assert len(payloads) < 10
    assert max(len(payload.encode()) for payload in payloads) <= MAX_PAYLOAD
    found = [raw for payload in payloads for raw in (decode_packet(payload) or pytest.fail("none of ours")).items]
    assert [bytes(raw) for raw in found] == items


@given(text=st.text(st.characters(codec="utf-8"), max_size=3_000), offset=st.integers(0, 10**9))
def test_a_delta_of_any_text_fits_in_pieces(text: str, offset: int) -> None:
    delta = MessageDelta(message_id=MESSAGE, attempt=1, part="content", offset=offset, text=text)
    again: MessageDelta | None = None
    for payload in pack(ME, [encode_item(piece) for piece in pieces(SESSION, delta)], MAX_PAYLOAD):
        assert len(payload.encode()) <= MAX_PAYLOAD
        packet = decode_packet(payload)
        assert packet is not None
        for raw in packet.items:
            piece = decode_item(raw)
            assert isinstance(piece, Piece), "a piece is never cut up again"
            again = piece.delta() if again is None else merge(again, piece.delta())
            assert again is not None
    assert (again is None) if not text else (again == delta)


@settings(max_examples=20)
@given(text=st.text(st.characters(codec="utf-8"), min_size=4_000, max_size=6_000).map(lambda text: text + 8_000 * '"'))
def test_what_is_too_large_goes_in_parts(text: str) -> None:
    item = Transient.of(
        SESSION, "warning", MessageDelta(message_id=MESSAGE, attempt=1, part="content", offset=0, text=text)
    )
    parts = []
    for payload in pack(ME, [encode_item(Hello()), encode_item(item), encode_item(Bye())], MAX_PAYLOAD):
        assert len(payload.encode()) <= MAX_PAYLOAD
        packet = decode_packet(payload)
        assert packet is not None
        parts += [decode_item(raw) for raw in packet.items]
    assert (parts[0], parts[-1]) == (Hello(), Bye())
    middle = [part for part in parts[1:-1] if isinstance(part, Fragment)]
    assert [part.last for part in middle] == [False] * (len(middle) - 1) + [True]
    assert decode_item("".join(part.text for part in middle)) == item


@pytest.mark.parametrize(
    "payload", ["", "hello", "{}", "[]", '["x",[]]', f'["{ME}"]', "[" * 5_000, f'["{ME}",7]', "\ud800"]
)
def test_what_is_none_of_ours_is_told_apart(payload: str) -> None:
    assert decode_packet(payload) is None


@pytest.mark.parametrize(
    "item",
    [
        '["z",1]',
        '["h"]',
        '["h","x",1]',
        f'["h","{SESSION}",-1]',
        f'["h","{SESSION}",1e30]',
        f'["d","{SESSION}","{MESSAGE}",1,"title",null,0,"x"]',
        f'["w","{SESSION}","yes"]',
        "7",
    ],
)
def test_items_that_are_wrong_or_newer_are_passed_over_one_by_one(item: str) -> None:
    packet = decode_packet(f'["{ME}",[{item},["s","{MESSAGE}"]]]')
    assert packet is not None
    assert [decode_item(raw) for raw in packet.items] == [None, Stir(MESSAGE)]


def test_only_transient_events_pass_as_such_and_only_in_their_form() -> None:
    changed = PresenceChanged(change="left", client=ClientInfo(client_id="c", transport="sse"), clients=0)
    assert payload_of(Transient.of(SESSION, "presence_changed", changed)) == changed
    for event_type, body in (
        ("message_created", b"{}"),
        ("disconnect", b'{"code":"shutdown","reason":"","reconnect":false}'),
        ("nonsense", b"{}"),
        ("presence_changed", b'{"change":"exploded"}'),
    ):
        assert payload_of(Transient(SESSION, event_type, Raw(body))) is None

"""The parts of the bus by themselves: what waits, who is there, who wants to hear what."""

from __future__ import annotations

from uuid import UUID, uuid4

from protocol.events import MessageDelta
from server.bus import outbox as outbox_module
from server.bus.interests import Interests
from server.bus.outbox import Outbox
from server.bus.packets import Hello, Hint, Item, Look, Piece, Want, decode_item
from server.bus.peers import Peers

A, B, SESSION, OTHER, MESSAGE = (uuid4() for _ in range(5))


def delta(offset: int, text: str) -> MessageDelta:
    return MessageDelta(message_id=MESSAGE, attempt=1, part="content", offset=offset, text=text)


def decoded(items: list[bytes]) -> list[Item | None]:
    return [decode_item(item.decode()) for item in items]


def everybody(_: UUID) -> set[UUID]:
    return {A, B}


def test_hints_of_a_session_become_one() -> None:
    outbox = Outbox()
    for seq in (3, 5, 4):
        outbox.hint(SESSION, seq)
    outbox.hint(OTHER, 7)
    outbox.hint(OTHER, 0)
    outbox.hint(OTHER, 9)
    assert outbox.urgent.is_set()
    direct, broadcast = outbox.take(everybody, texts=False)
    assert direct == {}
    assert decoded(broadcast) == [Hint(SESSION, 5), Hint(OTHER, 0)]
    assert not outbox.urgent.is_set()
    assert outbox.take(everybody, texts=True) == ({}, [])


def test_more_hints_than_are_kept_become_a_look_at_everything() -> None:
    outbox = Outbox()
    for number in range(outbox_module._MOST_HINTS + 5):
        outbox.hint(UUID(int=number), 1)
    _, broadcast = outbox.take(everybody, texts=False)
    assert decoded(broadcast) == [Look()]
    outbox.hint(SESSION, 1)
    assert decoded(outbox.take(everybody, texts=False)[1]) == [Hint(SESSION, 1)]


def test_pieces_are_merged_and_go_to_those_who_want_them() -> None:
    outbox = Outbox()
    outbox.delta(SESSION, delta(0, "one "))
    outbox.delta(SESSION, delta(4, "two"))
    outbox.delta(OTHER, delta(0, "nobody's"))
    assert (outbox.texts.is_set(), outbox.urgent.is_set()) == (True, False)
    direct, broadcast = outbox.take(lambda session_id: {A, B} if session_id == SESSION else (), texts=True)
    assert broadcast == []
    assert decoded(direct[A]) == [Piece(SESSION, MESSAGE, 1, "content", None, 0, "one two")]
    assert direct[A] == direct[B]
    assert not outbox.texts.is_set()


def test_last_words_come_before_the_hint_that_closes_their_message_and_others_wait() -> None:
    outbox = Outbox()
    outbox.delta(SESSION, delta(0, "last"))
    outbox.delta(OTHER, delta(0, "going on"))
    outbox.hint(SESSION, 4)
    direct, broadcast = outbox.take(everybody, texts=False)
    assert [type(item) for item in decoded(direct[A])] == [Piece]
    assert decoded(broadcast) == [Hint(SESSION, 4)]
    assert outbox.texts.is_set(), "the other session's piece waits for its time"


def test_the_text_so_far_comes_before_what_follows_it() -> None:
    outbox = Outbox()
    outbox.delta(SESSION, delta(4, "next"))
    outbox.tell(A, Piece(SESSION, MESSAGE, 1, "content", None, 0, "text"))
    direct, _ = outbox.take(lambda _: {A}, texts=True)
    assert [item.text for item in decoded(direct[A]) if isinstance(item, Piece)] == ["text", "next"]


def test_what_is_too_much_is_dropped_and_counted() -> None:
    outbox = Outbox()
    for _ in range(outbox_module._MOST_ITEMS + 3):
        outbox.say(Hello())
        outbox.tell(A, Want(SESSION, text=False))
    text = "x" * 100_000
    for number in range(50):
        outbox.delta(SESSION, delta(number * len(text), text))
    assert outbox.dropped > 6
    direct, broadcast = outbox.take(lambda _: {B}, texts=True)
    assert (len(direct[A]), len(broadcast)) == (outbox_module._MOST_ITEMS, outbox_module._MOST_ITEMS)
    before = outbox.dropped
    outbox.hint(SESSION, 1)
    outbox.delta(SESSION, delta(0, "x"))
    outbox.clear()
    assert outbox.dropped == before + 2
    assert outbox.take(everybody, texts=True) == ({}, [])


def test_others_are_those_that_were_seen_or_heard_lately() -> None:
    peers = Peers(memory=6.0)
    assert not peers
    assert peers.seen({A}, 0.0) == {A}
    assert peers.seen({A}, 3.0) == set()
    assert peers.heard(B, 3.0)
    assert not peers.heard(B, 4.0)
    assert len(peers) == 2
    assert peers.seen(set(), 9.0) == set()
    assert B in peers, "what was heard counts for a while by itself"
    peers.seen(set(), 11.0)
    assert not peers


def test_who_says_goodbye_is_gone_although_the_database_still_knows_it() -> None:
    peers = Peers(memory=6.0)
    peers.seen({A}, 0.0)
    peers.left(A, 1.0)
    assert not peers
    assert peers.seen({A}, 3.0) == set()
    assert not peers
    assert peers.seen({A}, 9.0) == {A}


def test_a_wish_is_a_lease() -> None:
    interests = Interests(lifetime=30.0)
    interests.want(SESSION, A, 0.0)
    interests.want(SESSION, B, 20.0)
    interests.prune(29.0)
    assert set(interests.wanted_by(SESSION)) == {A, B}
    interests.prune(31.0)
    assert set(interests.wanted_by(SESSION)) == {B}
    interests.forget(B)
    assert not interests.wanted_by(SESSION)


def test_it_is_asked_and_told_once_in_a_while() -> None:
    interests = Interests(lifetime=30.0)
    assert interests.should_probe(SESSION, 0.0)
    assert not interests.should_probe(SESSION, 14.0)
    assert interests.should_probe(SESSION, 15.0)
    assert interests.should_renew(SESSION, A, 0.0)
    interests.tell(SESSION, A, 0.0)
    assert not interests.should_renew(SESSION, A, 14.0)
    assert interests.should_renew(SESSION, A, 15.0)
    interests.prune(29.0)
    interests.forget(A)
    assert interests.should_probe(SESSION, 29.0), "whoever begins anew may be asked again"
    assert interests.should_ask(SESSION, 0.0)
    assert not interests.should_ask(SESSION, 0.4)
    assert interests.should_ask(SESSION, 0.5)

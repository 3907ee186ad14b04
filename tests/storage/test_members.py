"""Users of other people's sessions, and what browsers bring in place of a token."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.ids import new_id
from storage.members import Members
from storage.sessions import Session
from storage.tickets import Login, Logins, Ticket, Tickets
from tests.storage.conftest import Open
from tests.storage.scene import NOW, Scene

LATER = NOW + timedelta(seconds=30)


@pytest.fixture
async def scene(any_opener: Open) -> Scene:
    opened: Scene = await any_opener()
    return opened


async def put(scene: Scene, session: Session, user: str, role: Any) -> Any:
    return await Members(scene.database).put(session.session_id, user, role, by="ada", now=NOW)


async def found(scene: Scene, user: str, reference: object) -> Session:
    return await scene.sessions.resolve(user, str(reference))


async def refused(scene: Scene, user: str, reference: object) -> ErrorCode:
    with pytest.raises(ParleyError) as caught:
        await found(scene, user, reference)
    return caught.value.code


async def test_members_find_a_session_by_its_id_alone_and_with_their_role(scene: Scene) -> None:
    session = await scene.session("ada", alias="notes")
    assert await refused(scene, "bob", session.session_id) is ErrorCode.NOT_FOUND
    member, before = await put(scene, session, "bob", "observer")
    assert (member.user_id, member.role, member.added_by, member.added_at, before) == (
        "bob",
        "observer",
        "ada",
        NOW,
        None,
    )
    mine, his = await found(scene, "ada", session.session_id), await found(scene, "bob", session.session_id)
    assert (mine.role, mine.alias, his.role, his.alias, his.owner) == ("owner", "notes", "observer", None, "ada")
    assert await refused(scene, "bob", "notes") is ErrorCode.NOT_FOUND
    assert await refused(scene, "eve", session.session_id) is ErrorCode.NOT_FOUND


async def test_a_role_changes_and_ends(scene: Scene) -> None:
    session = await scene.session("ada")
    members = Members(scene.database)
    await put(scene, session, "bob", "observer")
    assert (await put(scene, session, "bob", "controller"))[1] == "observer"
    await put(scene, session, "alan", "observer")
    assert [(one.user_id, one.role) for one in await members.of(session.session_id)] == [
        ("alan", "observer"),
        ("bob", "controller"),
    ]
    assert await members.role("ada", session.session_id) == "owner"
    assert await members.role("bob", session.session_id) == "controller"
    assert await members.role("eve", session.session_id) is None
    assert await members.roles([session.session_id, new_id()]) == {
        (session.session_id, "alan"): "observer",
        (session.session_id, "bob"): "controller",
    }
    assert await members.remove(session.session_id, "bob")
    assert not await members.remove(session.session_id, "bob")
    assert await refused(scene, "bob", session.session_id) is ErrorCode.NOT_FOUND


async def test_there_are_a_hundred_members_at_most(scene: Scene) -> None:
    session = await scene.session("ada")
    for number in range(100):
        await put(scene, session, f"user {number}", "observer")
    with pytest.raises(ParleyError) as caught:
        await put(scene, session, "one more", "observer")
    assert caught.value.code is ErrorCode.LIMIT_REACHED
    # Who is there already may still change.
    assert (await put(scene, session, "user 7", "controller"))[1] == "observer"


async def test_with_the_session_the_members_are_gone(scene: Scene) -> None:
    session = await scene.session("ada")
    await put(scene, session, "bob", "controller")
    assert await scene.sessions.delete(session, NOW)
    assert await refused(scene, "bob", session.session_id) is ErrorCode.NOT_FOUND
    assert await refused(scene, "ada", session.session_id) is ErrorCode.SESSION_GONE
    assert await Members(scene.database).role("ada", session.session_id) is None
    assert await Members(scene.database).of(session.session_id) == []


async def test_shared_sessions_are_those_of_others(scene: Scene) -> None:
    one, two, own = await scene.session("ada"), await scene.session("eve"), await scene.session("bob")
    gone = await scene.session("ada")
    for session, role in ((one, "observer"), (two, "controller"), (gone, "observer")):
        await put(scene, session, "bob", role)
    await put(scene, own, "ada", "observer")
    await scene.sessions.delete(gone, NOW)
    page, total = await scene.sessions.shared("bob", limit=1, offset=0)
    assert ([(each.session_id, each.role, each.owner) for each in page], total) == (
        [(two.session_id, "controller", "eve")],
        2,
    )
    assert [each.session_id for each in (await scene.sessions.shared("bob", limit=9, offset=1))[0]] == [one.session_id]
    assert await scene.sessions.shared("bob", limit=9, offset=2) == ([], 2)
    assert await scene.sessions.shared("nobody", limit=9, offset=0) == ([], 0)


# --- tickets


def ticket(user: str = "ada", session_id: UUID | None = None) -> Ticket:
    return Ticket(user_id=user, scope="all", session_id=session_id, origin="https://a.example", until=LATER)


def digest(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


@pytest.mark.feature("R01")
async def test_a_ticket_is_good_once_however_many_bring_it(scene: Scene) -> None:
    tickets, issued = Tickets(scene.database), ticket(session_id=new_id())
    assert await tickets.issue(digest(1), issued, expires_at=LATER, now=NOW)
    found = await asyncio.gather(*(tickets.redeem(digest(1), NOW) for _ in range(20)))
    assert [each for each in found if each is not None] == [issued]
    assert await tickets.redeem(digest(1), NOW) is None
    assert await tickets.redeem(digest(2), NOW) is None


async def test_a_ticket_that_has_expired_is_none(scene: Scene) -> None:
    tickets = Tickets(scene.database)
    for number in (1, 2):
        assert await tickets.issue(digest(number), ticket(), expires_at=LATER, now=NOW)
    assert await tickets.redeem(digest(1), LATER) is None
    assert await tickets.redeem(digest(2), LATER - timedelta(milliseconds=1)) == ticket()


async def test_ten_thousand_tickets_are_bounded_and_swept(scene: Scene) -> None:
    tickets = Tickets(scene.database)
    issued = [await tickets.issue(digest(n), ticket(), expires_at=LATER, now=NOW) for n in range(1_500)]
    assert issued == [True] * 1_000 + [False] * 500
    # Others have their own; a used one makes room.
    assert await tickets.issue(digest(9_000), ticket("bob"), expires_at=LATER, now=NOW)
    assert await tickets.redeem(digest(5), NOW) is not None
    assert await tickets.issue(digest(9_001), ticket(), expires_at=LATER, now=NOW)
    # Once they have expired each new one takes a hundred away.
    after, last = LATER + timedelta(seconds=1), LATER + timedelta(seconds=31)
    for number in range(11):
        assert await tickets.issue(digest(10_000 + number), ticket("eve"), expires_at=last, now=after)
    assert [row["user_id"] for row in await scene.rows("SELECT DISTINCT user_id FROM tickets")] == ["eve"]


async def test_logins_end_and_the_oldest_make_room(scene: Scene) -> None:
    logins = Logins(scene.database)

    def login(number: int) -> Login:
        return Login(
            user_id="ada", scope="all", credential=b"c", expires_at=NOW + timedelta(hours=1, milliseconds=number)
        )

    for number in range(105):
        await logins.keep(digest(number), login(number), NOW)
    assert [await logins.find(digest(n), NOW) for n in (0, 4)] == [None, None]
    assert await logins.find(digest(5), NOW) == login(5)
    assert await logins.find(digest(5), NOW + timedelta(hours=2)) is None
    assert await logins.forget(digest(5))
    assert not await logins.forget(digest(5))
    assert await logins.find(digest(5), NOW) is None
    await logins.keep(digest(500), login(9_000_000), NOW + timedelta(hours=2))
    await logins.keep(digest(501), login(9_000_001), NOW + timedelta(hours=2))
    assert len(await scene.rows("SELECT FROM logins")) == 2

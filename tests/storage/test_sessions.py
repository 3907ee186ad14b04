"""Sessions: found by their owner only, named once, listed with their true number, emptied to a tombstone."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.ids import new_id
from storage.sessions import Session
from tests.storage.scene import AGENT, Scene


@pytest.mark.feature("S20")
async def test_a_new_session_is_empty_and_its_owners(scene: Scene) -> None:
    session = await scene.session(title="Tests", alias="mine")
    assert (session.owner, session.alias, session.title, session.current_agent) == ("ada", "mine", "Tests", AGENT)
    assert (session.seq, session.message_count, session.queued, session.active_turn) == (0, 0, 0, None)
    assert session.is_active
    assert session.created_at == session.last_activity
    for reference in ("mine", str(session.session_id), str(session.session_id).upper()):
        assert await scene.sessions.resolve("ada", reference) == session


@pytest.mark.feature("S20")
async def test_an_alias_is_its_owners(scene: Scene) -> None:
    first = await scene.session(alias="mine")
    with pytest.raises(ParleyError) as refused:
        await scene.session(alias="mine")
    assert refused.value.code is ErrorCode.CONFLICT
    other = await scene.session("eve", alias="mine")
    assert (await scene.sessions.resolve("eve", "mine")).session_id == other.session_id
    assert (await scene.sessions.resolve("ada", "mine")).session_id == first.session_id
    for wrong in ("", "a b", "x" * 129, "n\u00fcl"):
        with pytest.raises(ParleyError) as refused:
            await scene.session(alias=wrong)
        assert refused.value.code is ErrorCode.INVALID
    # What failed has left no session behind.
    assert await scene.value("SELECT count(*) FROM sessions") == 2


async def test_an_alias_may_look_like_a_uuid_but_not_be_anothers_id(scene: Scene) -> None:
    alias = str(new_id())
    named = await scene.session(alias=alias)
    assert (await scene.sessions.resolve("ada", alias)).session_id == named.session_id
    with pytest.raises(ParleyError) as refused:
        await scene.session(alias=str(named.session_id))
    assert refused.value.code is ErrorCode.CONFLICT
    # Another owner's ids are nothing to this one: neither taken nor shown.
    elsewhere = await scene.session("eve", alias=str(named.session_id))
    assert (await scene.sessions.resolve("eve", str(named.session_id))).session_id == elsewhere.session_id


async def test_of_many_with_one_alias_one_is_made(scene: Scene) -> None:
    made = await asyncio.gather(*(scene.session(alias="mine") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Session) for one in made) == 1
    assert {one.code for one in made if isinstance(one, ParleyError)} == {ErrorCode.CONFLICT}
    assert await scene.value("SELECT count(*) FROM sessions") == 1


async def test_anothers_session_is_as_if_it_did_not_exist(scene: Scene) -> None:
    session = await scene.session(alias="mine")
    for reference in ("mine", str(session.session_id), str(new_id()), "unknown", f"{{{session.session_id}}}"):
        with pytest.raises(ParleyError) as refused:
            await scene.sessions.resolve("eve", reference)
        assert refused.value.code in {ErrorCode.NOT_FOUND, ErrorCode.INVALID}
    assert not await scene.sessions.delete(_as_owner(session, "eve"), scene.now())
    assert (await scene.sessions.resolve("ada", "mine")).is_active


def _as_owner(session: Session, owner: str) -> Session:
    return Session(**{name: getattr(session, name) for name in session.__struct_fields__} | {"owner": owner})


@pytest.mark.feature("S20")
async def test_regression_24_total_is_not_the_pages_size(scene: Scene) -> None:
    sessions = [await scene.session(alias=f"s{number}") for number in range(7)]
    await scene.session("eve")
    await scene.sessions.delete(sessions[3], scene.now())
    await scene.say(sessions[0], "latest")

    async def page(limit: int, offset: int, *, active_only: bool = True) -> tuple[list[str | None], int]:
        found, total = await scene.sessions.list("ada", limit=limit, offset=offset, active_only=active_only)
        return [session.alias for session in found], total

    # The latest activity first.
    assert await page(2, 0) == (["s0", "s6"], 6)
    assert await page(2, 2) == (["s5", "s4"], 6)
    assert await page(10, 4) == (["s2", "s1"], 6)
    assert await page(2, 6) == ([], 6)
    assert await page(0, 0) == ([], 6)
    assert await page(3, 3, active_only=False) == (["s4", "s3", "s2"], 7)
    assert await scene.sessions.list("nobody", limit=5, offset=0) == ([], 0)


async def test_a_search_reads_so_much_and_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest sessions first, in them the newest messages; names are looked at in all."""
    for number in range(4):
        session = await scene.session(alias=f"needle{number}" if number == 0 else f"s{number}", title="x")
        for turn in range(2):
            await scene.end(await scene.begun(session, f"c{turn}", f"needle {turn}"), "x" * 100)

    async def found() -> tuple[list[str | None], bool]:
        result = await scene.sessions.search("ada", "Needle", limit=10, offset=0)
        assert result.total == len(result.page)
        return [one.session.alias for one in result.page], result.complete

    everything = ["s3", "s2", "s1", "needle0"]
    assert await found() == (everything, True)
    for name, value, expected in (
        ("_SEARCHED_MESSAGES", 16, (everything, True)),
        ("_SEARCHED_MESSAGES", 15, (everything, False)),
        # Of the third session the newest message alone, which is an answer.
        ("_SEARCHED_MESSAGES", 9, (["s3", "s2", "needle0"], False)),
        ("_SEARCHED_MESSAGES", 8, (["s3", "s2", "needle0"], False)),
        ("_SEARCHED_BYTES", 320, (["s3", "s2", "needle0"], False)),
        ("_SEARCHED_BYTES", 1, (["needle0"], False)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"storage.sessions.{name}", value)
            assert await found() == expected, (name, value)


@pytest.mark.feature("S20")
async def test_a_deleted_session_leaves_a_tombstone_and_nothing_else(scene: Scene) -> None:
    session = await scene.session(alias="mine", title="secret")
    await scene.begun(session, text="secret")
    await scene.say(session, "waits", "secret", n=1)
    other = await scene.session()
    await scene.begun(other)

    assert await scene.sessions.delete(session, scene.now())
    assert not await scene.sessions.delete(session, scene.now())
    for reference in ("mine", str(session.session_id)):
        with pytest.raises(ParleyError) as refused:
            await scene.sessions.resolve("ada", reference)
        assert refused.value.code is ErrorCode.SESSION_GONE
    # The alias stays taken: a client that comes back to it must learn that its session is gone.
    with pytest.raises(ParleyError) as refused:
        await scene.session(alias="mine")
    assert refused.value.code is ErrorCode.CONFLICT
    await scene.audit()
    tables = ("commands", "command_numbers", "queue", "turns", "tool_calls", "messages", "events")
    for table in tables:
        count = f"SELECT count(*) FROM {table} WHERE session_id = $1"
        assert await scene.value(count, session.session_id) == 0
    assert await scene.value("SELECT title FROM sessions WHERE session_id = $1", session.session_id) is None
    assert await scene.log.read(session.session_id, 0) == []
    assert len(await scene.log.read(other.session_id, 0)) == 2


async def test_heads_are_those_of_the_sessions_that_exist(scene: Scene) -> None:
    quiet, busy = await scene.session(), await scene.session()
    await scene.begun(busy)
    asked: list[UUID] = [quiet.session_id, busy.session_id, new_id()]
    assert await scene.sessions.heads(asked) == {quiet.session_id: 0, busy.session_id: 2}
    assert await scene.sessions.heads([]) == {}


async def test_an_epoch_is_each_sessions_own(scene: Scene) -> None:
    epochs = {(await scene.session()).epoch for _ in range(5)}
    assert len(epochs) == 5

"""Commands: what is refused changes nothing, what was done is answered again, and numbers keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply, StaleError
from storage.ids import new_id
from tests.storage.scene import AGENT, Scene


async def refusal(work: Awaitable[object]) -> ParleyError:
    with pytest.raises(ParleyError) as refused:
        await work
    return refused.value


def told(reply: Reply) -> tuple[object, ...]:
    return (reply.status, reply.seq, reply.message_id, reply.turn_id)


@pytest.mark.parametrize("right", [True, False], ids=["right_guess", "wrong_guess"])
async def test_a_message_starts_a_turn_or_waits(any_scene: Scene, right: bool) -> None:
    session = await any_scene.session()
    plan = any_scene.plan("first words")
    first = await any_scene.say(session, "a", "first words", plan=plan, busy=not right)
    second = await any_scene.say(session, "b", "second", busy=right)
    assert told(first) == ("accepted", 1, plan.message_id, plan.start().turn_id)
    assert (second.status, second.seq, second.turn_id) == ("queued", 3, None)
    assert first.commit is not None
    assert [(stored.seq, stored.event_type) for stored in first.commit.events] == [
        (1, "message_created"),
        (2, "task_started"),
    ]
    assert list(first.commit.events) == (await any_scene.log.read(session.session_id, 0))[:2]
    now = await any_scene.sessions.resolve("ada", str(session.session_id))
    assert (now.seq, now.title, now.queued, now.active_turn, now.message_count) == (
        3,
        "first words",
        1,
        plan.start().turn_id,
        1,
    )
    assert now.last_activity > session.last_activity
    await any_scene.audit()


@pytest.mark.parametrize("right", [True, False], ids=["right_guess", "wrong_guess"])
async def test_a_message_to_a_chosen_agent_asks_the_session_for_none(any_scene: Scene, right: bool) -> None:
    session = await any_scene.session()
    await any_scene.say(session, "a", plan=any_scene.plan("hello", agent="coder", direct=True), busy=not right)
    await any_scene.say(session, "b", plan=any_scene.plan("hello", agent="debug", direct=True), busy=right)
    await any_scene.say(session, "c", plan=any_scene.plan("hello"), busy=right)
    agents = await any_scene.rows("SELECT agent_type FROM queue ORDER BY position")
    assert await any_scene.value("SELECT agent_type FROM turns") == "coder"
    assert [row[0] for row in agents] == ["debug", None]


@pytest.mark.parametrize("body", ["the same", "another"])
async def test_an_id_belongs_to_one_body_in_one_session(any_scene: Scene, body: str) -> None:
    session, other = await any_scene.session(), await any_scene.session()
    first = await any_scene.say(session, "a", "the same")
    if body == "the same":
        assert told(await any_scene.say(session, "a", body)) == told(first)
    else:
        error = await refusal(any_scene.say(session, "a", body))
        assert (error.code, error.path, error.id) == (ErrorCode.CONFLICT, "$.id", "a")
        # Whatever kind of command it is.
        assert (await refusal(any_scene.switch(session, "a", (AGENT, "coder")))).code is ErrorCode.CONFLICT
    assert (await any_scene.say(other, "a", body)).status == "accepted"
    await any_scene.audit()


async def test_a_message_that_asked_not_to_wait_is_refused_and_its_repeat_is_not(any_scene: Scene) -> None:
    session = await any_scene.session()
    first = await any_scene.say(session, "a", "hello", on_busy="reject")
    # It made the session busy itself: that is no reason to refuse it when it comes again.
    assert told(await any_scene.say(session, "a", "hello", on_busy="reject")) == told(first)
    error = await refusal(any_scene.say(session, "b", on_busy="reject"))
    assert (error.code, error.path, error.id) == (ErrorCode.BUSY, "$.on_busy", "b")
    assert (await refusal(any_scene.say(session, "a", "other", on_busy="reject"))).code is ErrorCode.CONFLICT
    # A refusal is not remembered: the same id may wait now.
    assert (await any_scene.say(session, "b")).status == "queued"
    await any_scene.audit()


async def test_a_full_queue_refuses_and_answers_repeats(any_scene: Scene) -> None:
    session = await any_scene.session()
    await any_scene.begun(session)
    waiting = [await any_scene.say(session, f"w{n}", most=3) for n in range(3)]
    error = await refusal(any_scene.say(session, "late", most=3))
    assert (error.code, error.retry_after) == (ErrorCode.QUEUE_FULL, 1.0)
    assert told(await any_scene.say(session, "w1", most=3)) == told(waiting[1])
    assert waiting[0].message_id is not None
    await any_scene.remove(session, "room", waiting[0].message_id)
    assert (await any_scene.say(session, "late", most=3)).status == "queued"
    await any_scene.audit()


async def test_numbers_begin_at_one_and_have_no_gap(any_scene: Scene) -> None:
    session, other = await any_scene.session(), await any_scene.session()
    for n in (2, 0, -1):
        error = await refusal(any_scene.say(session, "a", n=n))
        assert (error.code, error.path) == (ErrorCode.OUT_OF_ORDER, "$.n")
    first = await any_scene.say(session, "a", n=1)
    assert (await refusal(any_scene.say(session, "c", n=3))).code is ErrorCode.OUT_OF_ORDER
    assert (await refusal(any_scene.say(session, "b", n=1))).code is ErrorCode.OUT_OF_ORDER
    second = await any_scene.say(session, "b", n=2)
    # Repeats come with their own number, long after it was used.
    assert told(await any_scene.say(session, "a", n=1)) == told(first)
    assert told(await any_scene.say(session, "b", n=2)) == told(second)
    assert (await any_scene.say(session, "c", n=3)).status == "queued"
    # Each client counts for itself, each session by itself; without a number none is asked for.
    assert (await any_scene.say(session, "d", n=1, client="c2")).status == "queued"
    assert (await any_scene.say(session, "e")).status == "queued"
    assert (await any_scene.say(other, "a", n=1)).status == "accepted"
    await any_scene.audit()


async def test_a_refusal_uses_no_number_up(any_scene: Scene) -> None:
    session = await any_scene.session()
    await any_scene.say(session, "a", "hello", n=1)
    codes = [
        (await refusal(work)).code
        for work in (
            any_scene.say(session, "b", n=2, on_busy="reject"),
            any_scene.say(session, "b", n=2, most=0),
            any_scene.say(session, "a", "another body", n=2),
            any_scene.remove(session, "b", new_id(), n=2),
            any_scene.reorder(session, "b", [new_id()], n=2),
            any_scene.say(session, "b", n=2, owner="eve"),
        )
    ]
    assert codes == [
        ErrorCode.BUSY,
        ErrorCode.QUEUE_FULL,
        ErrorCode.CONFLICT,
        ErrorCode.NOT_FOUND,
        ErrorCode.CONFLICT,
        ErrorCode.NOT_FOUND,
    ]
    for stale in (any_scene.cancel(session, "b", new_id(), n=2), any_scene.switch(session, "b", ("coder", "ask"), n=2)):
        with pytest.raises(StaleError):
            await stale
    assert (await any_scene.say(session, "b", n=2)).status == "queued"
    await any_scene.audit()


async def test_regression_26_two_commands_that_overtake_each_other_keep_their_order(any_scene: Scene) -> None:
    """The second arrives first: it is refused, changes nothing, and is taken when its time has come."""
    session = await any_scene.session()
    assert (await refusal(any_scene.say(session, "second", n=2))).code is ErrorCode.OUT_OF_ORDER
    first = await any_scene.say(session, "first", n=1)
    second = await any_scene.say(session, "second", n=2)
    assert first.seq < second.seq
    await any_scene.audit()


async def test_a_switch_is_from_the_agent_that_acts(any_scene: Scene) -> None:
    session = await any_scene.session()
    with pytest.raises(StaleError) as stale:
        await any_scene.switch(session, "a", ("coder", "ask"))
    assert stale.value.current_agent == AGENT
    switched = await any_scene.switch(session, "a", (AGENT, "coder"))
    assert told(switched) == ("accepted", 1, None, None)
    assert told(await any_scene.switch(session, "a", (AGENT, "coder"))) == told(switched)
    # A message prepared for the former agent is prepared again; when it waits, its agent is found later.
    with pytest.raises(StaleError) as stale:
        await any_scene.say(session, "b")
    assert (stale.value.current_agent, stale.value.active_turn) == ("coder", None)
    await any_scene.say(session, "b", plan=any_scene.plan("hello", agent="coder"))
    assert (await any_scene.say(session, "c")).status == "queued"
    await any_scene.audit()


@pytest.mark.feature("A04")
async def test_cancel_is_of_the_turn_that_runs(any_scene: Scene) -> None:
    session = await any_scene.session()
    assert (await refusal(any_scene.cancel(session, "a", new_id()))).code is ErrorCode.NO_ACTIVE_TURN
    claim = await any_scene.begun(session)
    with pytest.raises(StaleError) as stale:
        await any_scene.cancel(session, "a", new_id())
    assert stale.value.active_turn == claim.turn_id
    stop = await any_scene.cancel(session, "a", claim.turn_id)
    assert told(stop) == ("accepted", 3, None, claim.turn_id)
    gone = new_id()
    assert await any_scene.turns.news_of([claim.turn_id, gone]) == {claim.turn_id: (1, True)}
    # Pressed twice is asked twice, and both are in the log; the first one's repeat is not.
    again = await any_scene.cancel(session, "b", claim.turn_id)
    assert again.seq == 4
    await any_scene.end(claim)
    assert told(await any_scene.cancel(session, "a", claim.turn_id)) == told(stop)
    assert (await refusal(any_scene.cancel(session, "c", claim.turn_id))).code is ErrorCode.NO_ACTIVE_TURN
    await any_scene.audit()


async def test_the_queue_is_reordered_whole_and_taken_back_one_by_one(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    ids = [(await any_scene.say(session, f"w{n}", f"text {n}")).message_id for n in range(4)]
    one, two, three, four = [message_id for message_id in ids if message_id is not None]
    for wrong in ([one, two, three], [one, two, three, three], [one, two, three, four, new_id()], []):
        error = await refusal(any_scene.reorder(session, "order", wrong))
        assert (error.code, error.path) == (ErrorCode.CONFLICT, "$.order")
    ordered = await any_scene.reorder(session, "order", [four, two, one, three])
    assert (await any_scene.reorder(session, "order", [four, two, one, three])).seq == ordered.seq
    removed = await any_scene.remove(session, "remove", two)
    assert (removed.message_id, (await any_scene.remove(session, "remove", two)).seq) == (two, removed.seq)
    error = await refusal(any_scene.remove(session, "again", two))
    assert (error.code, error.path) == (ErrorCode.NOT_FOUND, "$.remove")
    last = (await any_scene.say(session, "w4", "text 4")).message_id
    await any_scene.audit()
    begun = []
    while True:
        await any_scene.end(claim)
        if await any_scene.turns.next_waiting(session.session_id) is None:
            break
        start = any_scene.start(session, await any_scene.waiting(session))
        assert await any_scene.turns.start_waiting(start) is not None
        begun.append(start.message_id)
        claim = any_scene.claim(session, start)
    assert begun == [four, one, three, last]
    # Told again what it was told, also when the message waits no more.
    assert (await any_scene.reorder(session, "order", [four, two, one, three])).seq == ordered.seq
    await any_scene.audit()


@pytest.mark.parametrize("state", ["deleted", "another's", "unknown"])
async def test_a_session_that_is_not_there_takes_no_command(any_scene: Scene, state: str) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    owner = "eve" if state == "another's" else "ada"
    if state == "deleted":
        assert await any_scene.sessions.delete(session, any_scene.now())
    elif state == "unknown":
        await any_scene.rows("DELETE FROM sessions")
    expected = ErrorCode.SESSION_GONE if state == "deleted" else ErrorCode.NOT_FOUND
    for work in (
        any_scene.say(session, "first", owner=owner),
        any_scene.say(session, "new", owner=owner, n=1),
        any_scene.cancel(session, "new", claim.turn_id, owner=owner),
        any_scene.switch(session, "new", (AGENT, "coder"), owner=owner),
        any_scene.remove(session, "new", new_id(), owner=owner),
        any_scene.reorder(session, "new", [], owner=owner),
    ):
        error = await refusal(work)
        assert (error.code, error.id is not None) == (expected, True)
    assert await any_scene.value("SELECT count(*) FROM command_numbers") == 0
    assert await any_scene.value("SELECT count(*) FROM commands") == (0 if state == "deleted" else 1)


async def test_a_caller_that_gives_up_leaves_all_or_nothing(any_scene: Scene) -> None:
    """Cancelled in mid-statement, over and over: what the log holds is whole, and a repeat finds it out."""
    session = await any_scene.session()
    for number in range(30):
        task = asyncio.create_task(any_scene.say(session, f"c{number}", "hello"))
        for _ in range(number % 10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reply = await any_scene.say(session, f"c{number}", "hello")
        assert told(await any_scene.say(session, f"c{number}", "hello")) == told(reply)
    await any_scene.audit()
    assert await any_scene.value("SELECT count(*) FROM commands") == 30

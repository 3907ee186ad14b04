"""What must be true of a session's whole log once everything is quiet, whatever was killed before."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import asyncpg

from protocol.ids import format_timestamp
from tests.support.checker import Ledger, Record

__all__ = ["Audit", "audit", "compare_database"]

#: How the last message of a turn may end, by the turn's outcome. A turn that ends among its tool calls has only those.
_FINISH: Final[dict[str, set[str | None]]] = {
    "completed": {"stop"},
    "cancelled": {"cancelled", "tool_calls", None},
    "failed": {"error", None},
    "interrupted": {"interrupted"},
}

#: What a row looks like about which nothing is left to do.
_OVER: Final = {"turns": "finished_at IS NOT NULL AND step_state = 'done'", "tool_calls": "finished_at IS NOT NULL"}


class Audit:
    """Walks a session's events in order; any sentence that the log must not contain fails."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.counts: Counter[str] = Counter()
        self.created: dict[str, dict[str, Any]] = {}
        self.effects: dict[str, int] = {}
        self.queue: list[str] = []
        self._removed: set[str] = set()
        self._user: dict[str, Any] = {}
        self._turn: str | None = None
        self._last: dict[str, Any] = {}
        self._announced: set[str] = set()
        self._open_calls: set[str] = set()
        self._ended_turns: set[str] = set()
        self._cancelling: set[str] = set()

    def event(self, seq: int, event_type: str, body: dict[str, Any]) -> None:
        """Take the next event."""
        self.counts[event_type] += 1
        match event_type:
            case "message_created" if body["role"] == "user":
                self._said(seq, body)
            case "message_created":
                self._answered(body)
            case "task_started":
                assert self._turn is None, (seq, body)
                assert (body["turn_id"], body["message_id"]) == (self._user["turn_id"], self._user["message_id"]), seq
                assert body["turn_id"] not in self._ended_turns, (seq, body)
                self._turn, self._last = body["turn_id"], {}
            case "task_cancelling":
                assert body["turn_id"] == self._turn, (seq, body)
                self._took_effect(seq, body["command_id"])
                self._cancelling.add(body["turn_id"])
            case "task_completed":
                self._completed(seq, body)
            case "turn_error":
                assert body["turn_id"] == self._turn, (seq, body)
            case "tool_call":
                assert body["turn_id"] == self._turn, (seq, body)
                self._announced.remove(body["call_id"])
                self._open_calls.add(body["call_id"])
            case "tool_result":
                # Exactly one result a call: a second one finds no open call.
                self._open_calls.remove(body["call_id"])
            case "queue_changed":
                self._queued(seq, body)
            case _:
                raise AssertionError((seq, event_type, body))

    def _said(self, seq: int, body: dict[str, Any]) -> None:
        assert self._turn is None, (seq, body)
        assert body["message_id"] not in self.created, (seq, body)
        self.created[body["message_id"]] = self._user = body
        assert body["content"] == self.ledger.sent[body["command_id"]]["content"], (seq, body)
        self.counts["user"] += 1
        if body["message_id"] in self.queue:
            assert self.queue.pop(0) == body["message_id"], (seq, "the queue was not served in order")
        else:
            self._took_effect(seq, body["command_id"])

    def _answered(self, body: dict[str, Any]) -> None:
        assert body["role"] == "assistant", body
        assert body["turn_id"] == self._turn, body
        assert body["message_id"] not in self.created, body
        assert not self._announced, body
        assert not self._open_calls, body
        self.created[body["message_id"]] = self._last = body
        self._announced = {call["call_id"] for call in body.get("tool_calls", ())}
        self.counts[f"attempt {body['attempt']}"] += 1

    def _completed(self, seq: int, body: dict[str, Any]) -> None:
        status = body["status"]
        assert body["turn_id"] == self._turn, (seq, body)
        assert not self._announced, (seq, body)
        assert not self._open_calls, (seq, body)
        assert self._last.get("finish_reason") in _FINISH[status], (seq, body, self._last)
        if status == "cancelled":
            assert self._turn in self._cancelling, (seq, body)
        if status == "completed":
            expected = self.ledger.sent[self._user["command_id"]]["answer"]
            assert expected is None or self._last["content"] == expected, (seq, self._last, expected)
        self.counts[status] += 1
        self._ended_turns.add(body["turn_id"])
        self._turn = None

    def _queued(self, seq: int, body: dict[str, Any]) -> None:
        message = body["message_id"]
        match body["change"]:
            case "added":
                assert self._turn is not None or self.queue, (seq, body)
                self._took_effect(seq, body["command_id"])
                self.queue.append(message)
            case "removed":
                self._took_effect(seq, body["command_id"])
                self.queue.remove(message)
                self._removed.add(message)
            case _:
                assert body["change"] == "started", (seq, body)
                assert self.queue[0] == message, (seq, body)

    def _took_effect(self, seq: int, command_id: str) -> None:
        assert command_id not in self.effects, f"command {command_id} took effect at {self.effects[command_id]}, {seq}"
        self.effects[command_id] = seq

    def finish(self) -> None:
        """Nothing is left open, and each command that was answered did what its answer says."""
        ledger = self.ledger
        assert self._turn is None, self._turn
        assert not self.queue, self.queue
        assert ledger.opened.keys() <= self.created.keys(), "a message was begun and never completed"
        for message, attempt in ledger.opened.items():
            assert attempt <= self.created[message]["attempt"], (message, attempt)
        for command_id in ledger.sent:
            ack = ledger.acks.get(command_id)
            # What was refused has changed nothing, at no time.
            assert self.effects.get(command_id) == (None if ack is None else ack["seq"]), (command_id, ack)
            if ack is not None and "content" in ledger.sent[command_id]:
                assert ack["message_id"] in self.created.keys() | self._removed, (command_id, ack)
            if ack is not None and ledger.events[ack["seq"]].timestamp < ledger.resent.get(command_id, ""):
                # It had taken effect, and its sender was not told: the case that ids are for.
                self.counts["effects of lost acks"] += 1
        assert self.effects.keys() <= ledger.sent.keys()


def audit(ledger: Ledger) -> Audit:
    """Check all that is known of a session."""
    assert sorted(ledger.events) == list(range(1, ledger.head + 1)), "the log has a hole"
    walk = Audit(ledger)
    for seq, record in sorted(ledger.events.items()):
        walk.event(seq, record.event_type, record.body)
    walk.finish()
    return walk


async def compare_database(connection: asyncpg.Connection, walk: Audit) -> None:
    """The tables say the same as the clients saw, row for row where it matters."""
    ledger = walk.ledger
    session = ledger.session_id
    rows = await connection.fetch(
        "SELECT seq, event_type, created_at, body FROM events WHERE session_id = $1 ORDER BY seq", session
    )
    stored = {row["seq"]: Record(row["event_type"], format_timestamp(row["created_at"]), row["body"]) for row in rows}
    assert stored == ledger.events

    counted = await connection.fetchval("SELECT count(*) FROM messages WHERE session_id = $1", session)
    assert counted == walk.counts["message_created"] + walk.counts["tool_result"]
    texts = await connection.fetch(
        "SELECT message_id, content FROM messages WHERE session_id = $1 AND role <> 'tool'", session
    )
    assert {str(row["message_id"]): row["content"] for row in texts} == {
        message: body["content"] for message, body in walk.created.items()
    }

    state = await connection.fetchrow(
        "SELECT seq, message_count, queued, active_turn FROM sessions WHERE session_id = $1", session
    )
    assert state is not None
    assert tuple(state) == (ledger.head, counted, 0, None)
    commands = await connection.fetch("SELECT command_id, first_seq FROM commands WHERE session_id = $1", session)
    assert dict(map(tuple, commands)) == walk.effects
    for table, over in _OVER.items():
        query = f"SELECT count(*) FROM {table} WHERE session_id = $1 AND NOT ({over})"
        left = await connection.fetchval(query, session)
        assert left == 0, (table, left)
    assert await connection.fetchval("SELECT count(*) FROM queue WHERE session_id = $1", session) == 0

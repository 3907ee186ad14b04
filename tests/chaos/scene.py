"""The scene of the chaos: sessions in use by several clients each, and a hand that kills at a chosen moment.

The moment is one of progress, not of time: after so many deltas, after so many events, or so many turns of the loop
after a command was sent. The kill happens inside the very callback that saw it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from tests.chaos.clients import TRANSPORTS, Follower, RefusedError, Talker, Transport
from tests.chaos.requests import draw
from tests.support.checker import Ledger, View
from tests.support.process import ServerProcess

__all__ = ["CONFIG", "Stage", "Trigger"]

#: Answers of one to two seconds; nothing else is easier than in a server of yours.
CONFIG: Final = """\
[agents.offline]
speed = 200

[server]
shutdown_timeout = 5
"""

_WAITING: Final = (1, 1, 2, 4)


class Trigger:
    """Does something once, at the moment when something else has happened so many times."""

    def __init__(self) -> None:
        self._what = ""
        self._count = 0
        self._turns = 0
        self._action: Callable[[], Any] = lambda: None
        self._fired: asyncio.Future[Any] | None = None

    def arm(self, dice: random.Random, action: Callable[[], Any]) -> asyncio.Future[Any]:
        """Choose a moment; the future has what the action returned then."""
        self._what = dice.choices(("delta", "event", "command"), weights=(50, 25, 25))[0]
        self._turns = 0
        if self._what == "delta":
            self._count = int(2 ** dice.uniform(0, 9)) if dice.random() < 0.5 else dice.randrange(1, 1500)
        elif self._what == "event":
            self._count = dice.randrange(1, 13)
        else:
            self._count, self._turns = dice.randrange(1, 3), dice.randrange(200)
        self._action = action
        self._fired = asyncio.get_running_loop().create_future()
        return self._fired

    def tick(self, what: str) -> None:
        """It has happened once more."""
        if self._fired is not None and what == self._what and self._count:
            self._count -= 1
            if not self._count:
                self._fire()

    def _fire(self) -> None:
        if self._turns:
            self._turns -= 1
            asyncio.get_running_loop().call_soon(self._fire)
            return
        fired, self._fired = self._fired, None
        assert fired is not None
        fired.set_result(self._action())


class Stage:
    """One session: who follows it, who talks to it, and what it is doing as far as they know."""

    def __init__(self, server: ServerProcess, session_id: str, dice: random.Random, trigger: Trigger) -> None:
        self.server = server
        self.ledger = Ledger(session_id)
        self.followers: list[Follower] = []
        self.dice = dice
        self._trigger = trigger
        for transport in TRANSPORTS:
            self.join(transport)
        self.talker = Talker(server, self.ledger, self.followers[0], dice, lambda: trigger.tick("command"))
        self.followers[0].view.listeners.append(self._hear)
        self._changed = asyncio.Event()
        self._stopping = False
        self._turns: dict[str, str] = {}
        self._running: str | None = None
        self._queued: set[str] = set()
        self._over: set[str] = set()

    @classmethod
    async def open(cls, server: ServerProcess, dice: random.Random, trigger: Trigger) -> Stage:
        """Create a session."""
        async with server.http.post(f"{await server.address()}/sessions", json={}) as response:
            assert response.status == 201, await response.text()
            return cls(server, (await response.json())["id"], dice, trigger)

    def join(self, transport: Transport, *, from_start: bool = True) -> Follower:
        """One more client."""
        view = View(self.ledger, f"{transport}-{len(self.followers)}", from_start=from_start)
        follower = Follower(self.server, view, transport)
        self.followers.append(follower)
        return follower

    def _hear(self, event_type: str, payload: dict[str, Any]) -> None:
        match event_type:
            case "message_created" if payload["role"] == "user":
                self._turns[payload["turn_id"]] = payload["message_id"]
                self._queued.discard(payload["message_id"])
            case "task_started":
                self._running = payload["turn_id"]
            case "task_completed":
                self._running = None
                self._over.add(self._turns[payload["turn_id"]])
            case "queue_changed" if payload["change"] == "added":
                self._queued.add(payload["message_id"])
            case "queue_changed" if payload["change"] == "removed":
                self._queued.discard(payload["message_id"])
                self._over.add(payload["message_id"])
        self._changed.set()
        if event_type == "message_delta":
            self._trigger.tick("delta")
        elif event_type in {"message_created", "task_started", "task_completed", "tool_call", "tool_result"}:
            self._trigger.tick("event")

    def _outstanding(self) -> int:
        """How many acknowledged messages were not answered yet."""
        said = {ack["message_id"] for ack in self.ledger.acks.values() if "message_id" in ack}
        return len(said - self._over)

    async def _until_outstanding(self, most: int) -> None:
        while self._outstanding() > most and not (self._stopping and most):
            self._changed.clear()
            await self._changed.wait()

    # --- what its user does

    async def talk(self) -> None:
        """Keep the session busy: messages, also while others wait; now and then a cancel or a second thought."""
        while not self._stopping:
            await self._until_outstanding(self.dice.choice(_WAITING) - 1)
            try:
                await self._act(self.dice.random())
            except RefusedError as refusal:
                if str(refusal) not in {"no_active_turn", "not_found"}:
                    raise
                # The turn, or the wait of the message, was over before the command came.

    async def _act(self, roll: float) -> None:
        if roll < 0.1 and self._running is not None:
            await self.talker.send(type="cancel", turn_id=self._running)
        elif roll < 0.2 and self._queued:
            await self.talker.send(type="queue_update", remove=self.dice.choice(sorted(self._queued)))
        else:
            request = draw(self.dice)
            await self.talker.send(type="user_message", content=request.content, answer=request.answer)

    def stop(self) -> None:
        """Say nothing new from now on."""
        self._stopping = True
        self._changed.set()

    async def quiet(self) -> int:
        """Wait until everything that was said is answered and everybody was shown it; the last event's number."""
        await self._until_outstanding(0)
        for command_id in self.dice.sample(sorted(self.ledger.acks), min(3, len(self.ledger.acks))):
            await self.talker.repeat(command_id)
        url = f"{await self.server.address()}/sessions/{self.ledger.session_id}"
        async with self.server.http.get(url) as response:
            head = int((await response.json())["cursor"].rpartition(".")[2])
        for follower in self.followers:
            await follower.view.reached(head)
        return head

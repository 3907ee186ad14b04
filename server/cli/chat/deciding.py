"""What waits for the user in a chat: calls that need a decision, and questions of agents. One is asked at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from protocol.client import Client
from protocol.commands import Remember
from protocol.durable import ApprovalRequired, ApprovalResolved, TaskCompleted
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ResyncRequired
from server.cli.chat.approving import Approving
from server.cli.text import arguments_of, one_line
from server.cli.tools import READING

__all__ = ["Answer", "Desk", "FollowUp", "answer_of", "automatic", "decide", "keys_of", "rule_for"]

_NOBODY: Final = "nobody is there to approve it"
_WORDS: Final[dict[str, Literal["approve", "always", "edit", "reject"]]] = {
    "y": "approve",
    "yes": "approve",
    "a": "always",
    "always": "always",
    "e": "edit",
    "edit": "edit",
    "n": "reject",
    "no": "reject",
}


class Answer(NamedTuple):
    """What the user says to a call; `text` is why they reject it, or what they say in the tool's place."""

    what: Literal["approve", "always", "edit", "reject", "respond"]
    text: str = ""
    arguments: dict[str, Any] | None = None


class FollowUp(NamedTuple):
    """A question of an agent's, and who waits for the answer."""

    question: str
    options: Sequence[str]
    answer: asyncio.Future[str]

    def take(self, text: str) -> None:
        """Answer it; a number stands for the option of that number."""
        text = text.strip()
        chosen = int(text) - 1 if text.isascii() and text.isdecimal() else -1
        if not self.answer.done():
            self.answer.set_result(self.options[chosen] if 0 <= chosen < len(self.options) else text)


class Desk:
    """The open questions, oldest first. `take` is told of what happens."""

    def __init__(self) -> None:
        self._waiting: dict[str, ApprovalRequired | FollowUp] = {}

    @property
    def current(self) -> ApprovalRequired | FollowUp | None:
        """What is asked now."""
        return next(iter(self._waiting.values()), None)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, payload: object) -> None:
        """Take an event: a call that waits, or one that does not any more."""
        match payload:
            case ApprovalRequired(call_id=call_id):
                self._waiting.setdefault(call_id, payload)
            case ApprovalResolved(call_id=call_id):
                self._waiting.pop(call_id, None)
            case TaskCompleted(turn_id=turn_id):
                self._drop(turn_id)
            case ResyncRequired():
                self._drop(None)
            case _:
                pass

    def _drop(self, turn_id: UUID | None) -> None:
        for call_id, one in list(self._waiting.items()):
            if isinstance(one, ApprovalRequired) and turn_id in {None, one.turn_id}:
                del self._waiting[call_id]

    def ask(self, question: str, options: Sequence[str]) -> FollowUp:
        """Have a question asked; whoever gives it up calls `forget`."""
        asked = FollowUp(question, options, asyncio.get_running_loop().create_future())
        self._waiting[f"question {id(asked)}"] = asked
        return asked

    def forget(self, one: ApprovalRequired | FollowUp) -> None:
        """It is answered, or not asked any more."""
        self._waiting = {key: other for key, other in self._waiting.items() if other is not one}

    def alike(self, approval: ApprovalRequired) -> list[ApprovalRequired]:
        """Other calls that a rule made of this one's would have let run."""
        rule = rule_for(approval)
        return [
            one
            for one in self._waiting.values()
            if isinstance(one, ApprovalRequired) and one is not approval and rule is not None and rule == rule_for(one)
        ]

    def clear(self) -> None:
        """Nobody is asked anything any more."""
        self._waiting.clear()


def rule_for(approval: ApprovalRequired) -> Remember | None:
    """What `always` means for a call: its tool in this session; of a command exactly this one. None if it cannot be."""
    if approval.name != "execute_command":
        return Remember(scope="session", tool=approval.name)
    command = approval.arguments.get("command") if isinstance(approval.arguments, dict) else None
    # A pattern matches more than itself.
    if not isinstance(command, str) or set(command) & set("*?["):
        return None
    return Remember(scope="session", tool=approval.name, arguments={"command": command})


def keys_of(approval: ApprovalRequired) -> str:
    """What the user may enter."""
    allowed = approval.allowed_decisions
    keys = ["y yes"] if "approve" in allowed else []
    keys += ["n [WHY] no"] if "reject" in allowed else []
    keys += ["e edit"] if "edit" in allowed else []
    if "approve" in allowed and rule_for(approval) is not None:
        what = "this command" if approval.name == "execute_command" else one_line(approval.name, 40)
        keys.append(f"a always {what}")
    keys += ["r TEXT reply"] if "respond" in allowed else []
    return " · ".join(keys)


def answer_of(text: str, approval: ApprovalRequired) -> Answer | None:
    """What was entered, if it is an answer; everything else is a message."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if word.lower() in {"r", "respond"} and rest and "respond" in approval.allowed_decisions:
        return Answer("respond", rest)
    what = _WORDS.get(word.lower())
    # "Yes, but" is no yes.
    if what is None or (rest and what != "reject"):
        return None
    if what == "always":
        return Answer(what) if "approve" in approval.allowed_decisions and rule_for(approval) is not None else None
    return Answer(what, rest) if what in approval.allowed_decisions else None


def automatic(how: Approving, approval: ApprovalRequired) -> Answer | None:
    """What is decided without asking; None if somebody is to decide."""
    match how:
        case "ask" | "wait":
            return None
        case "all":
            return Answer("approve")
        case "reads" if approval.name in READING:
            return Answer("approve")
        case "reads" | "never":
            return Answer("reject", _NOBODY)


async def decide(
    client: Client, approval: ApprovalRequired, answer: Answer, alike: Iterable[ApprovalRequired] = ()
) -> str:
    """Tell the server; what became of it in words. Raises what sending raises, but not that somebody was quicker."""
    call_id, call = approval.call_id, f"{one_line(approval.name, 60)}({arguments_of(approval.arguments)})"
    try:
        match answer.what:
            case "approve":
                await client.approve(call_id)
                return f"{call} is approved"
            case "always":
                await client.approve(call_id, remember=rule_for(approval))
                for one in deque(alike):
                    await decide(client, one, Answer("approve"))
                return f"{call} is approved, and so is its like in this session"
            case "edit":
                await client.edit(call_id, answer.arguments or {})
                return f"{one_line(approval.name, 60)}({arguments_of(answer.arguments)}) is approved as edited"
            case "reject":
                await client.reject(call_id, answer.text or None)
                return f"{call} is rejected" + (f": {one_line(answer.text, 200)}" if answer.text else "")
            case "respond":
                await client.respond(call_id, answer.text)
                return f"{call} is answered by you"
    except ParleyError as error:
        if error.code not in {ErrorCode.ALREADY_RESOLVED, ErrorCode.NOT_FOUND}:
            raise
        return f"{call} was decided already: {error.message}"

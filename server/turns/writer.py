"""A message being written: an agent's output turned into deltas, and kept until it is stored."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from protocol.delta import utf16_len
from protocol.events import MessageDelta, Part
from protocol.values import clean_text
from server.agents.interface import AgentError, Reasoning, Text, ToolCallDelta
from server.turns.outlet import Outlet
from storage.claims import Claim
from storage.ids import new_id

__all__ = ["MessageWriter"]

_REASONING_SHARE: Final = 2
#: Characters of a tool's name: far more than any tool has, and little enough to be repeated in every event of its call.
_LONGEST_NAME: Final = 256


def _is_index(value: object) -> bool:
    """Whether it is one; agents' structs hold whatever was put there, and calls are sorted by their indices."""
    return isinstance(value, int)


class _Growing:
    """A text that grows by pieces: joined only when somebody asks, its length in UTF-16 code units at hand."""

    __slots__ = ("_pieces", "units")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.units = 0

    def append(self, text: str) -> int:
        """Add a piece and return the offset at which it stands."""
        offset = self.units
        self._pieces.append(text)
        self.units += utf16_len(text)
        return offset

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


class _GrowingCall(_Growing):
    """A tool call whose arguments are being written."""

    __slots__ = ("call_id", "name")

    def __init__(self, call_id: UUID, name: str) -> None:
        super().__init__()
        self.call_id = call_id
        self.name = name


class MessageWriter:
    """What one attempt of one step has written so far; every piece goes to the outlet at once.

    `opened`: whether clients may have seen a part of the message, so that it must be closed.
    """

    def __init__(self, claim: Claim, outlet: Outlet, *, max_chars: int, max_calls: int) -> None:
        self.claim = claim
        self.opened = claim.attempt > 1
        self.changed = False
        self._closed = False
        self._outlet = outlet
        self._room = max_chars
        self._reasoning_room = max_chars // _REASONING_SHARE
        self._max_calls = max_calls
        self._content = _Growing()
        self._reasoning = _Growing()
        self._calls: dict[int, _GrowingCall] = {}

    def write(self, output: Text | Reasoning | ToolCallDelta) -> bool:
        """Take a piece; False when the message is full and was cut off. Raises AgentError for output without sense."""
        if self._closed:
            raise AgentError("closed", "the message was closed; nothing can be added to it")
        if isinstance(output, ToolCallDelta):
            return self._write_call(output)
        if isinstance(output, Reasoning):
            kept = clean_text(output.text[: self._reasoning_room])
            self._reasoning_room -= len(kept)
            self._append("reasoning", self._reasoning, kept)
            return True
        # Cut first: whatever is thrown away need not be looked at, and it may be much.
        kept = clean_text(output.text[: self._room])
        self._room -= len(kept)
        self._append("content", self._content, kept)
        return len(kept) == len(output.text)

    def _write_call(self, output: ToolCallDelta) -> bool:
        call = self._calls.get(output.index)
        if call is None:
            if not output.name:
                raise AgentError("invalid_output", f"the first piece of call {output.index} does not name its tool")
            if len(self._calls) >= self._max_calls:
                raise AgentError("too_many_calls", f"more than {self._max_calls} tool calls in one step")
            if not _is_index(output.index) or len(output.name) > _LONGEST_NAME:
                raise AgentError(
                    "invalid_output", f"a call has a number as index and a name of at most {_LONGEST_NAME} characters"
                )
            call = self._calls[output.index] = _GrowingCall(new_id(), clean_text(output.name))
        text = clean_text(output.arguments)
        if len(text) > self._room:
            raise AgentError("message_too_long", "the arguments of the step's tool calls are too long")
        self._room -= len(text)
        self._append("arguments", call, text, str(call.call_id))
        return True

    def _append(self, part: Part, growing: _Growing, text: str, call_id: str | None = None) -> None:
        if not text:
            return
        offset = growing.append(text)
        self.opened = self.changed = True
        self._outlet.delta(
            self.claim.session_id,
            MessageDelta(
                message_id=self.claim.message_id,
                attempt=self.claim.attempt,
                part=part,
                call_id=call_id,
                offset=offset,
                text=text,
            ),
        )

    def save(self) -> Claim:
        """Bring the claim's texts up to date, for a checkpoint or the end."""
        self.claim.content = str(self._content)
        self.claim.reasoning = str(self._reasoning)
        self.changed = False
        return self.claim

    def close(self) -> Claim:
        """Bring the claim's texts up to date for good: an agent that goes on although it was stopped is not heard."""
        self._closed = True
        return self.save()

    def calls(self) -> list[tuple[UUID, str, str]]:
        """The calls that were written: id, tool, arguments; in the order of their indices."""
        return [(call.call_id, call.name, str(call)) for _, call in sorted(self._calls.items())]

"""Tool calls, put together from the pieces in which endpoints send them.

OpenAI's own way: each piece has the call's ``index``; the first also its ``id`` and the function's name. Others leave
the index out, repeat id and name with each piece, send whole calls, give every call the index 0, or invent an id for
each piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from server.agents.interface import ToolCallDelta
from server.agents.model.chunks import CallPiece, FunctionPiece, Halves

__all__ = ["Calls", "TooLongError", "is_object"]


#: What an empty piece of a call weighs, in characters.
_COST: Final = 64


class TooLongError(Exception):
    """More arguments were sent before their function was named than are worth keeping."""


class _Call:
    __slots__ = ("call_id", "named", "number", "pieces")

    def __init__(self, number: int) -> None:
        self.number = number
        self.call_id: str | None = None
        self.named = False
        self.pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def complete(self) -> bool:
        return (not self.pieces or self.pieces[-1].rstrip().endswith("}")) and is_object(self.arguments)


class Calls:
    """The calls of one step; each piece comes out as it comes in, under a number of ours that counts from 0."""

    def __init__(self, max_unsent: int = 1 << 20) -> None:
        """``max_unsent``: characters of arguments that may come before the name of their function."""
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._unsent = max_unsent
        self._halves = Halves()

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, pieces: list[CallPiece]) -> Iterator[ToolCallDelta]:
        """The deltas of one chunk's pieces; ``function.name`` is passed on as it was sent, once a call."""
        touched: set[int] = set()
        for piece in pieces:
            function = piece.function or FunctionPiece()
            call = self._find(piece, function, touched)
            touched.add(call.number)
            call.call_id = call.call_id or piece.id or None
            text = self._halves.join(call.number, _text(function.arguments))
            if text:
                call.pieces.append(text)
            if not call.named and not function.name:
                # What nobody is told of is bounded here; the rest is by whoever listens.
                self._unsent -= len(text) + _COST
                if self._unsent < 0:
                    raise TooLongError
            elif not call.named:
                call.named = True
                yield ToolCallDelta(call.number, call.call_id, function.name, call.arguments)
            elif text:
                yield ToolCallDelta(call.number, arguments=text)

    def unnamed(self) -> bool:
        """Whether a call's function was never named."""
        return any(not call.named for call in self._calls)

    def cut(self) -> bool:
        """Whether the arguments of a call are no whole JSON object."""
        return any(not is_object(call.arguments) for call in self._calls)

    def _find(self, piece: CallPiece, function: FunctionPiece, touched: set[int]) -> _Call:
        """The call that a piece belongs to."""
        known = self._by_index.get(piece.index) if piece.index is not None else self._without_index(piece)
        if known is None or _begins_another(piece, function, known, touched):
            known = _Call(len(self._calls))
            self._calls.append(known)
        if piece.index is not None:
            self._by_index[piece.index] = known
        return known

    def _without_index(self, piece: CallPiece) -> _Call | None:
        if piece.id:
            same = next((call for call in self._calls if call.call_id == piece.id), None)
            if same is not None:
                return same
        return self._calls[-1] if self._calls else None


def _begins_another(piece: CallPiece, function: FunctionPiece, known: _Call, touched: set[int]) -> bool:
    """Whether a piece that seems to go on with a call is the first of the next one. Only those have a name."""
    if not function.name or not known.named:
        return False
    if piece.id and known.call_id:
        return piece.id != known.call_id
    # Whole calls without ids: two in one chunk, or one after another that is complete.
    return piece.index is None and (known.number in touched or known.complete)


def _text(arguments: Any) -> str:
    """Whatever else than text was sent is what the text would have said."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments in (None, {}) else msgspec.json.encode(arguments).decode()


def is_object(text: str) -> bool:
    """Whether arguments are a JSON object; none at all stand for an empty one."""
    if not text.strip():
        return True
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False

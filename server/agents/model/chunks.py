"""A streamed answer as it comes over the wire: bytes, then events, then chunks.

The types allow what OpenAI's do not but its imitators send: arguments that are an object, indices that are text or
missing, content in parts, a whole ``message`` in place of a ``delta``, halves of a character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from protocol.framing import SseParser

__all__ = [
    "DONE",
    "CallPiece",
    "Choice",
    "Chunk",
    "Delta",
    "Events",
    "FunctionPiece",
    "Halves",
    "Tokens",
    "parse_chunk",
    "parse_tokens",
]

DONE: Final = "[DONE]"
"""The data of the event after which nothing follows."""


class FunctionPiece(Struct):
    """Which function is called, and a piece of its arguments."""

    name: str | None = None
    arguments: Any = None


class CallPiece(Struct):
    """A piece of a tool call."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(Struct):
    """A piece of the answer."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None
    function_call: FunctionPiece | None = None


class Choice(Struct):
    """One of the answers; only the first is asked for."""

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class Tokens(Struct):
    """What the answer cost so far."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(Struct):
    """One event of the stream; ``error`` (or ``object: error``, with the message beside it) ends it."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    object: str | None = None
    message: Any = None
    code: Any = None


_decoder: Final = msgspec.json.Decoder(Chunk, strict=False)
_HALF: Final = re.compile("[\ud800-\udfff]")


def parse_chunk(data: str) -> Chunk:
    """The chunk in an event's data; raises ``ValueError`` when there is none in it."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        said = str(error)
    try:
        # The standard library also reads escaped halves of a character (see `Halves`).
        return msgspec.convert(json.loads(data), Chunk, strict=False)
    except (ValueError, RecursionError):
        raise ValueError(said) from None


def parse_tokens(usage: Any) -> Tokens | None:
    """The numbers of tokens, if they can be read. An answer is none the worse for it if they cannot."""
    try:
        return msgspec.convert(usage, Tokens | None, strict=False)
    except msgspec.ValidationError:
        return None


class Halves:
    """Puts characters together whose halves came in different pieces.

    A gateway in JavaScript or Java that cuts its texts, which are UTF-16, may cut an emoji in two.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str] = {}

    def join(self, part: Hashable, text: str) -> str:
        """The next text of a part, without a half at its end, which comes with the next one."""
        if text.isascii() and not self._waiting:
            return text
        text = self._waiting.pop(part, "") + text
        if text[-1:] and "\ud800" <= text[-1] <= "\udbff":
            self._waiting[part], text = text[-1], text[:-1]
        if _HALF.search(text) is None:
            return text
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Events:
    """From the body's bytes, however they are cut, to the data of its events."""

    def __init__(self, max_bytes: int) -> None:
        self._parser = SseParser(max_bytes)

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that are complete now. Raises ParleyError(TOO_LARGE) for one that is too long."""
        return _data(self._parser.feed(data))

    def end(self) -> list[str]:
        """What is left when the body has ended: some endpoints forget the blank line after their last event.

        Half an event is none; the answer is then cut, and not wrong.
        """
        return [data for data in _data(self._parser.feed(b"\n\n")) if data == DONE or _is_json(data)]


def _data(messages: Iterable[Any]) -> list[str]:
    return [data for message in messages if (data := message.data.strip())]


def _is_json(data: str) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True

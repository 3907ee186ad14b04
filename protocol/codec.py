"""Commands from bytes and to bytes.

Both encodings take one way: bytes -> plain values -> a check that the values can be kept -> the typed command. So a
rule is written once and holds for both, an error can name the field and the command's id, and one bad item of an array
spoils no other.

Of a key that an object holds twice the last value counts. That is harmless here, because nothing reads the bytes a
second time: the decoded value alone is checked, hashed, stored, shown and executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct

from protocol.commands import (
    COMMANDS,
    Cancel,
    Command,
    Ping,
    QueueUpdate,
    RefreshToken,
    SwitchAgent,
    UserMessage,
)
from protocol.envelope import Encoding
from protocol.errors import ErrorCode, ParleyError
from protocol.explain import explain
from protocol.ids import ID_PATTERN
from protocol.values import MAX_CONTAINERS, canonical, check_value

__all__ = [
    "MAX_COMMANDS",
    "MAX_COMMAND_BYTES",
    "MAX_NESTING",
    "Encoding",
    "command_hash",
    "decode_command",
    "decode_commands",
    "encode_command",
]

#: A file write must fit.
MAX_COMMAND_BYTES: Final = 1 << 20
#: Levels of arrays and objects in one command, the command itself included.
MAX_NESTING: Final = 64
#: Commands in one array.
MAX_COMMANDS: Final = 256

#: How deep the second look at bad MessagePack goes; an array of commands, their fields, and a little further.
_LENIENT_LEVELS: Final = 4

#: Commands without a field that takes any value, and how deep they are nested at most.
_CLOSED: Final = frozenset({UserMessage, Cancel, SwitchAgent, QueueUpdate, RefreshToken, Ping})
_CLOSED_LEVELS: Final = 3
_commands: Final[msgspec.json.Decoder[Command]] = msgspec.json.Decoder(Command)

_ID: Final = re.compile(ID_PATTERN)
_READING_ERRORS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError)


class _Asked(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What a user message asks, its keys in order: what most commands are hashed by."""

    agent_type: str | None = None
    content: str
    on_busy: str = "enqueue"
    type: str


def decode_command(
    data: bytes | str,
    encoding: Encoding = "json",
    max_bytes: int = MAX_COMMAND_BYTES,
    max_nesting: int = MAX_NESTING,
) -> Command:
    """Read one command.

    Raises ParleyError, with the field's path and the command's id as far as they could be read: TOO_LARGE (bytes,
    nesting), MALFORMED (no JSON or MessagePack, or MessagePack that has no JSON form), INVALID (anything else).
    """
    if encoding == "json" and max_nesting >= _CLOSED_LEVELS:
        command = _read_closed(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), max_bytes)
        if command is not None:
            return command
    return _typed(_read(data, encoding, max_bytes), "$", max_nesting)


def decode_commands(
    data: bytes | str,
    encoding: Encoding = "json",
    max_bytes: int = MAX_COMMAND_BYTES,
    max_nesting: int = MAX_NESTING,
    max_commands: int = MAX_COMMANDS,
) -> list[Command | ParleyError]:
    """Read an array of commands, or a single one; a bad item is in the list as its error, with a path like `$[2].id`.

    `max_bytes` is for the whole. Raises ParleyError when the whole cannot be read.
    """
    value = _read(data, encoding, max_bytes)
    if not isinstance(value, list):
        return [_typed_or_error(value, "$", max_nesting)]
    if len(value) > max_commands:
        raise ParleyError(ErrorCode.TOO_LARGE, f"at most {max_commands} commands are allowed at once", path="$")
    return [_typed_or_error(item, f"$[{index}]", max_nesting) for index, item in enumerate(value)]


def encode_command(command: Command, encoding: Encoding = "json") -> bytes:
    """The bytes a client sends. Raises ParleyError(INVALID) for values that have no such form."""
    try:
        return msgspec.json.encode(command) if encoding == "json" else msgspec.msgpack.encode(command)
    except (UnicodeError, OverflowError, TypeError) as error:
        raise ParleyError(ErrorCode.INVALID, f"cannot be encoded: {error}", id=command.id) from error


def command_hash(command: Command) -> bytes:
    """SHA-256 of what the command asks, the same for every encoding of it; tells a repeat from a conflict.

    Without `id`, which is what two compared commands share, and `n`, which counts deliveries. Keys in any order,
    defaults given or left out, and numbers written as `1` or `1.0` make no difference; the form of a text does (nothing
    is normalised), and so does content as one text or in parts.
    """
    if type(command) is UserMessage and type(command.content) is str:
        # The very same bytes, without the ways between.
        asked = _Asked(
            agent_type=command.agent_type, content=command.content, on_busy=command.on_busy, type="user_message"
        )
        return hashlib.sha256(msgspec.json.encode(asked)).digest()
    value: dict[str, Any] = msgspec.to_builtins(command)
    value.pop("id", None)
    value.pop("n", None)
    return hashlib.sha256(msgspec.json.encode(canonical(value), order="deterministic")).digest()


def _read_closed(data: bytes, max_bytes: int) -> Command | None:
    """The command, where its type says all that there is to say of its values; None when it has to be looked at.

    Most commands take this way, at a quarter of the cost. Escapes are what a NUL or a lone surrogate comes by: as they
    are, neither is JSON. Whatever is wrong is found out, and explained, by the other way.
    """
    if len(data) > max_bytes or b"\\u" in data:
        return None
    try:
        command = _commands.decode(data)
    except _READING_ERRORS:
        return None
    return command if type(command) in _CLOSED else None


def _read(data: bytes | str, encoding: Encoding, max_bytes: int) -> object:
    """The plain value of the bytes."""
    if isinstance(data, str):
        if encoding == "msgpack":
            raise ParleyError(ErrorCode.MALFORMED, "MessagePack comes in binary frames")
        data = data.encode("utf-8", "surrogatepass")
    if len(data) > max_bytes:
        raise ParleyError(ErrorCode.TOO_LARGE, f"at most {max_bytes} bytes are allowed")
    try:
        return msgspec.json.decode(data) if encoding == "json" else msgspec.msgpack.decode(data)
    except RecursionError as error:
        raise ParleyError(ErrorCode.TOO_LARGE, "nested too deeply", path="$") from error
    except _READING_ERRORS as error:
        value = _lenient_json(data) if encoding == "json" else _lenient_msgpack(data, _LENIENT_LEVELS, [MAX_CONTAINERS])
        if value is None:
            reason = "not valid UTF-8" if isinstance(error, UnicodeError) else str(error).partition(" - at ")[0]
            raise ParleyError(ErrorCode.MALFORMED, reason) from error
        return value


def _lenient_json(data: bytes) -> object:
    """What a lenient reader makes of a text that msgspec refused; None if it cannot read it either.

    It takes lone surrogates, NaN and Infinity, and bytes that are no UTF-8 (as lone surrogates), so that the check of
    the value can say in which field of which command they are.
    """
    for errors in ("surrogatepass", "surrogateescape"):
        with contextlib.suppress(ValueError, RecursionError):  # what it cannot read stays msgspec's to explain
            return cast("object", json.loads(data.decode("utf-8", errors)))
    return None


def _lenient_msgpack(data: bytes | Raw, levels: int, left: list[int]) -> object:
    """The value with a lone surrogate in place of what is not UTF-8; None if it is no MessagePack.

    Looks into arrays and maps for `levels` levels, as every level reads all that is in it once more, and at no more
    than `left[0]` values, which it counts down; what lies beyond counts as bad.
    """
    left[0] -= 1
    if left[0] < 0:
        return "\udcff"
    try:
        return msgspec.msgpack.decode(data)
    except UnicodeError:
        pass
    except _READING_ERRORS:
        return None
    if levels:
        with contextlib.suppress(*_READING_ERRORS):  # not an array
            items = msgspec.msgpack.decode(data, type=list[Raw])
            return [_lenient_msgpack(item, levels - 1, left) for item in items]
        with contextlib.suppress(*_READING_ERRORS):  # not a map with readable keys
            fields = msgspec.msgpack.decode(data, type=dict[str, Raw])
            return {key: _lenient_msgpack(item, levels - 1, left) for key, item in fields.items()}
    return "\udcff"


def _typed(value: object, path: str, max_nesting: int) -> Command:
    """The command that a plain value stands for."""
    tag = value.get("type") if isinstance(value, dict) else None
    # Naming the one type is several times faster than naming the union, which serves to refuse all else.
    kind: Any = COMMANDS.get(tag, Command) if isinstance(tag, str) else Command
    try:
        check_value(value, path, max_nesting)
        return cast("Command", msgspec.convert(value, kind))
    except ParleyError as error:
        error.id = _id_of(value)
        raise
    except msgspec.ValidationError as error:
        message, place = explain(error, value, kind)
        raise ParleyError(ErrorCode.INVALID, message, path=path + place[1:], id=_id_of(value)) from error


def _typed_or_error(value: object, path: str, max_nesting: int) -> Command | ParleyError:
    try:
        return _typed(value, path, max_nesting)
    except ParleyError as error:
        return error


def _id_of(value: object) -> str | None:
    """A command's id as far as it is one."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and _ID.search(found) else None

"""One event as bytes: encoded once, then only joined.

An event's bytes are a function of (session, cursor, type, timestamp, payload) and of nothing else, so a replay is
byte for byte the first delivery. The payload is carried as the encoded JSON that is stored; the envelope is put around
it without touching it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from protocol.cursor import Cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.events import EVENTS, Payload
from protocol.values import fit_integers

__all__ = ["Encoding", "Envelope", "Event", "decode_event", "payload_json", "payload_msgpack"]

Encoding: TypeAlias = Literal["json", "msgpack"]


class Envelope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is around every payload. The order of the fields is the order on the wire.

    Durable events alone carry `seq` and `cursor`. `payload` is still encoded; `decode()` reads it.
    """

    event_type: str
    session_id: str
    timestamp: str
    seq: int | None = None
    cursor: str | None = None
    payload: Raw

    def decode(self, encoding: Encoding = "json") -> Payload | None:
        """The typed payload; None for an event type that this version does not know, which clients ignore.

        Raises ParleyError(PROTOCOL_ERROR) when a known type carries something else.
        """
        known = EVENTS.get(self.event_type)
        if known is None:
            return None
        module = msgspec.json if encoding == "json" else msgspec.msgpack
        try:
            payload: Payload = module.decode(self.payload, type=known.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise ParleyError(ErrorCode.PROTOCOL_ERROR, f"{self.event_type}: {error}", path="$.payload") from error
        return payload


_json_encoder: Final = msgspec.json.Encoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()
_json_envelopes: Final = msgspec.json.Decoder(Envelope)
_msgpack_envelopes: Final = msgspec.msgpack.Decoder(Envelope)


def payload_json(payload: Struct) -> bytes:
    """A payload as it is stored and sent: compact JSON on one line.

    Raises UnicodeEncodeError for lone surrogates; text from outside is cleaned where it comes in.
    """
    return _json_encoder.encode(payload)


def payload_msgpack(payload: bytes) -> bytes:
    """The MessagePack form of an encoded JSON payload: the same value, key by key in the same order."""
    value = msgspec.json.decode(payload)
    try:
        return _msgpack_encoder.encode(value)
    except OverflowError:
        # JSON's integers have no bound, MessagePack's have 64 bits; a double is what JavaScript would have read anyway.
        return _msgpack_encoder.encode(fit_integers(value))


class Event:
    """An event on its way to clients. Immutable; its encodings are made on first use and kept.

    `sse_id` is what an SSE frame says in its `id:` line: the cursor of a durable event, and on `connected`, whose
    cursor stands in its payload, that cursor. `frames` keeps the framings that `protocol.framing` makes.
    """

    __slots__ = (
        "_json",
        "_msgpack",
        "cursor",
        "event_type",
        "frames",
        "payload",
        "seq",
        "session_id",
        "sse_id",
        "timestamp",
    )

    def __init__(
        self,
        event_type: str,
        session_id: str,
        timestamp: str,
        payload: bytes,
        *,
        cursor: Cursor | None = None,
        sse_id: str | None = None,
    ) -> None:
        self.event_type = event_type
        self.session_id = session_id
        self.timestamp = timestamp
        self.payload = payload
        self.seq = None if cursor is None else cursor.seq
        self.cursor = None if cursor is None else str(cursor)
        self.sse_id = self.cursor if sse_id is None else sse_id
        self.frames: dict[str, bytes] = {}
        self._json: bytes | None = None
        self._msgpack: bytes | None = None

    @property
    def json(self) -> bytes:
        """The event as JSON, on one line."""
        if self._json is None:
            self._json = _json_encoder.encode(self._envelope(self.payload))
        return self._json

    @property
    def msgpack(self) -> bytes:
        """The event as MessagePack: a map with the same keys."""
        if self._msgpack is None:
            self._msgpack = _msgpack_encoder.encode(self._envelope(payload_msgpack(self.payload)))
        return self._msgpack

    @property
    def size(self) -> int:
        """How many bytes its JSON has; what a bound on memory counts."""
        return len(self.json)

    def _envelope(self, payload: bytes) -> Envelope:
        return Envelope(
            event_type=self.event_type,
            session_id=self.session_id,
            timestamp=self.timestamp,
            seq=self.seq,
            cursor=self.cursor,
            payload=Raw(payload),
        )


def decode_event(data: bytes | str, encoding: Encoding = "json") -> Envelope:
    """Read a frame as a client does: the envelope now, the payload when its type is known.

    Unknown types and unknown fields are fine. Raises ParleyError(PROTOCOL_ERROR) when it is not an envelope.
    """
    try:
        if encoding == "msgpack":
            return _msgpack_envelopes.decode(data if isinstance(data, bytes) else data.encode())
        return _json_envelopes.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise ParleyError(ErrorCode.PROTOCOL_ERROR, f"not an event: {error}") from error

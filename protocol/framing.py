"""Events as the bytes that go onto a wire, for every transport; and the readers of the two streamed ones.

A frame is made once per event and kept with it. What a channel has ready is joined into one buffer, to be written at
once: fewer, larger writes are what makes fan-out fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from protocol.envelope import Event
from protocol.errors import ErrorCode, ParleyError

__all__ = [
    "BATCH_BYTES",
    "LAST_CHUNK",
    "Framing",
    "NdjsonParser",
    "SseMessage",
    "SseParser",
    "chunk",
    "frame",
    "frame_many",
    "ndjson_line",
    "split_batch",
    "sse_frame",
    "ws_batch",
    "ws_frame",
]

Framing: TypeAlias = Literal["ws-json", "ws-json-batch", "ws-msgpack", "sse", "ndjson"]

#: A batch is closed when it has this many bytes, as clients limit the size of a message (1 MiB is common).
BATCH_BYTES: Final = 256 * 1024

#: Ends a chunked HTTP/1.1 body (RFC 9112, section 7.1).
LAST_CHUNK: Final = b"0\r\n\r\n"

_FIN_TEXT: Final = 0x81
_FIN_BINARY: Final = 0x82


def ws_frame(payload: bytes, *, text: bool) -> bytes:
    """A whole WebSocket message as a server sends it: one final frame, unmasked (RFC 6455, section 5.2)."""
    first = _FIN_TEXT if text else _FIN_BINARY
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


def ws_batch(events: Sequence[Event]) -> bytes:
    """One WebSocket text message that holds several events, separated by newlines."""
    return ws_frame(b"\n".join([event.json for event in events]), text=True)


def split_batch(message: bytes) -> list[bytes]:
    """The events of a WebSocket message, batched or not, each still encoded."""
    # An encoded event never holds a raw newline: JSON escapes it in strings, and the server writes none between.
    return message.split(b"\n")


def sse_frame(event: Event) -> bytes:
    """One message of an event stream: `id:` (only if the event moves the cursor), `event:`, `data:`, blank line."""
    identity = f"id: {event.sse_id}\n" if event.sse_id is not None else ""
    return f"{identity}event: {event.event_type}\ndata: ".encode() + event.json + b"\n\n"


def ndjson_line(event: Event) -> bytes:
    """One line of newline-delimited JSON."""
    return event.json + b"\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked HTTP/1.1 body; nothing for no data, as an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _ws_json(event: Event) -> bytes:
    return ws_frame(event.json, text=True)


def _ws_msgpack(event: Event) -> bytes:
    return ws_frame(event.msgpack, text=False)


_FRAMERS: Final[dict[Framing, Callable[[Event], bytes]]] = {
    "ws-json": _ws_json,
    "ws-msgpack": _ws_msgpack,
    "sse": sse_frame,
    "ndjson": ndjson_line,
}


def frame(event: Event, framing: Framing) -> bytes:
    """The event in one framing, made on first use and kept with it."""
    if framing == "ws-json-batch":
        framing = "ws-json"  # a batch of one
    data = event.frames.get(framing)
    if data is None:
        data = event.frames[framing] = _FRAMERS[framing](event)
    return data


def frame_many(events: Sequence[Event], framing: Framing) -> bytes:
    """The events in order, framed and joined once, to be written at once."""
    if framing == "ws-json-batch":
        return b"".join([ws_batch(batch) for batch in _batches(events)])
    return b"".join([frame(event, framing) for event in events])


def _batches(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """The events in runs of at most BATCH_BYTES; one that is larger by itself goes alone."""
    start = size = 0
    for index, event in enumerate(events):
        if size and size + event.size > BATCH_BYTES:
            yield events[start:index]
            start, size = index, 0
        size += event.size + 1
    if size:
        yield events[start:]


class _Lines:
    """Bytes, however they are cut, to lines; bounded, as a line that never ends would fill the memory."""

    def __init__(self, max_bytes: int, *, universal: bool) -> None:
        self._max_bytes = max_bytes
        self._universal = universal
        self._pending: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        if self._universal:
            data = self._normalise(data)
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join([*self._pending, complete[0]])
            self._pending.clear()
            self._size = 0
        if rest:
            self._pending.append(rest)
            self._size += len(rest)
        if self._size > self._max_bytes:
            raise ParleyError(ErrorCode.TOO_LARGE, f"a line of the stream has more than {self._max_bytes} bytes")
        return complete

    def _normalise(self, data: bytes) -> bytes:
        """Make CR LF, CR and LF one LF, also when a CR LF is cut in two."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class NdjsonParser:
    """A reader of newline-delimited JSON that may be fed any pieces, also ones that split a character.

    An unfinished last line is not an event: the stream broke, and the cursor fetches it again.
    """

    def __init__(self, max_bytes: int = 16 << 20) -> None:
        self._lines = _Lines(max_bytes, universal=False)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, still encoded; empty ones are left out.

        Raises ParleyError(TOO_LARGE) when a line is longer than `max_bytes`.
        """
        return [line for line in map(bytes.strip, self._lines.feed(data)) if line]


class SseMessage(NamedTuple):
    """One message of an event stream. `id` is the last event id at that point, which a later message inherits."""

    event: str
    data: str
    id: str


class SseParser:
    """A reader of `text/event-stream` as browsers read it (WHATWG HTML, section 9.2.6), fed with any pieces.

    `last_event_id` is what a reconnect sends as `Last-Event-ID`, `retry_ms` the delay that the server asked for.
    """

    def __init__(self, max_bytes: int = 16 << 20) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._max_bytes = max_bytes
        self._lines = _Lines(max_bytes, universal=True)
        self._first = True
        self._event = ""
        self._id = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[SseMessage]:
        """The messages that are complete now. Raises ParleyError(TOO_LARGE) when one is longer than `max_bytes`."""
        messages = []
        for line in self._lines.feed(data):
            text = line.decode("utf-8", "replace")
            if self._first:
                text = text.removeprefix("\ufeff")
                self._first = False
            if text:
                self._field(text)
            elif (message := self._dispatch()) is not None:
                messages.append(message)
        return messages

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            if self._size > self._max_bytes:
                raise ParleyError(ErrorCode.TOO_LARGE, f"an event has more than {self._max_bytes} bytes")
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value[:9])

    def _dispatch(self) -> SseMessage | None:
        """What a blank line ends."""
        self.last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        if not data:
            return None
        return SseMessage(event or "message", "\n".join(data), self._id)

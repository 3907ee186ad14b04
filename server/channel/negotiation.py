"""Which of two framings a client wants (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import hdrs, web

__all__ = ["EVENT_STREAM", "NDJSON", "StreamFraming", "negotiate"]

StreamFraming = Literal["sse", "ndjson"]

EVENT_STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"

_TYPES: Final[dict[str, StreamFraming]] = {EVENT_STREAM: "sse", NDJSON: "ndjson"}


def negotiate(request: web.Request, preferred: StreamFraming = "sse") -> StreamFraming:
    """The framing that `Accept` asks for: the preferred one unless the other is wanted more.

    Raises 406 when it wants neither.
    """
    ranges = [_range(text) for text in ",".join(request.headers.getall(hdrs.ACCEPT, ())).split(",") if text.strip()]
    if not ranges:
        return preferred
    qualities = {media_type: _quality(media_type, ranges) for media_type in _TYPES}
    best = max(_TYPES, key=lambda media_type: (qualities[media_type], _TYPES[media_type] == preferred))
    if not qualities[best]:
        raise web.HTTPNotAcceptable(reason=f"this address speaks {' and '.join(_TYPES)}")
    return _TYPES[best]


def _range(text: str) -> tuple[str, float]:
    """A media range and its quality; a quality that cannot be read counts as 0."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value.strip() for key, _, value in (one.partition("=") for one in parameters) if key == "q"), "1")
    try:
        return name, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return name, 0.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """The quality that the most specific matching range gives."""
    for pattern in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        matching = [quality for name, quality in ranges if name == pattern]
        if matching:
            return max(matching)
    return 0.0

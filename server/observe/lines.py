"""Lines that every request writes, made by hand.

The way of all other lines, through the processors of structlog and logging, costs a small request as much processor
time as all the rest of it. These have known fields, are searched for credentials all the same, and look no different.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias

import msgspec
from msgspec import Struct

__all__ = ["AccessLine", "Handler", "timestamp", "write_line", "write_lines_to"]

Handler: TypeAlias = "logging.StreamHandler[TextIO]"

_encoder: Final = msgspec.json.Encoder()
_logger: Final = logging.getLogger("server.access")
#: Where lines are written as JSON; None where they take the way of all others.
_handler: Handler | None = None


class AccessLine(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A request's line in the access log. The fields stand in the order in which they are written."""

    method: str
    path: str
    status: int | None = None
    duration_ms: float
    sent: int | None = None
    remote: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    event: str
    logger: str
    level: str
    timestamp: str

    def fields(self) -> dict[str, Any]:
        """Those that a logger does not add by itself."""
        own = {"logger", "level", "timestamp"}
        return {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not None and name not in own
        }


def timestamp() -> str:
    """The time of a line, as structlog writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_lines_to(handler: Handler | None) -> None:
    """Write lines to the stream of this handler, as JSON; None: leave them to structlog."""
    global _handler  # noqa: PLW0603 - a process has one log
    _handler = handler


def write_line(line: AccessLine) -> bool:
    """Write a line at once, as one that is only kept would be lost with the process; False when it was not written."""
    handler = _handler
    if handler is None:
        return False
    if not _logger.isEnabledFor(logging.INFO):
        return True
    text = _encoder.encode(line).decode()
    handler.acquire()
    try:
        handler.stream.write(text + handler.terminator)
        handler.flush()
    except (OSError, ValueError):
        # What cannot be written is logging's to report, in its way.
        return False
    finally:
        handler.release()
    return True

"""One log for everything: structlog's lines and those of libraries (aiohttp, asyncio, warnings), to standard error.

Each line has an ISO 8601 UTC `timestamp`, a `level`, the `logger`, the `event`, what was noted of the request that it
is about (`marks.py`), and whatever the task has bound. `redact` is the last word on what a line may hold.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

import msgspec
import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from protocol._override import override
from server.config import LogSettings
from server.observe.lines import write_lines_to
from server.observe.marks import merge_marks
from server.observe.redact import redact

__all__ = ["configure"]

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: No help to operators below these levels: asyncio is chatty at `info`, and asyncpg's pool warns with a traceback of
#: every connection that it misses while the database is away, which others have said once by then.
_QUIET: Final = {"asyncio": logging.WARNING, "asyncpg.pool": logging.ERROR}


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up logging for the process; may be called again. `stream` is standard error unless given."""
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    level = _LEVELS[settings.level]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_common(), processors=_last(console, stream))
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    write_lines_to(None if console else handler)
    root.setLevel(level)
    for name, floor in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, floor))
    http = logging.getLogger("aiohttp.server")
    if not any(isinstance(each, _Unreadable) for each in http.filters):
        http.addFilter(_Unreadable())
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers are module globals: a cached one would keep the first configuration for good.
        cache_logger_on_first_use=False,
    )


class _Unreadable(logging.Filter):
    """Makes one line, at `info`, of what aiohttp logs as an error with a traceback: somebody spoke no HTTP to us.

    Every port that the world can reach gets such visitors, and their words are nothing to keep.
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            record.msg, record.args, record.exc_info = "unreadable request: %s", (type(error).__name__,), None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return record.levelno >= logging.getLogger().level


def _common() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        merge_marks,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _last(console: bool, stream: TextIO) -> list[structlog.typing.Processor]:
    renderer: structlog.typing.Processor
    if console:
        # Tracebacks are text already, so that no renderer can add the values of local variables to them.
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    else:
        renderer = structlog.processors.JSONRenderer(serializer=_json)
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
        renderer,
    ]


def _json(event: dict[str, Any], **_ignored: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from server.config import LogSettings
from server.observe.lines import write_lines_to
from server.observe.logs import configure


class Log:
    """What was logged; the setup is the server's own."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, **settings: Any) -> None:
        configure(LogSettings(**({"format": "json"} | settings)), self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    log = Log()
    log.configure()
    yield log
    root.setLevel(level)
    root.handlers[:] = handlers
    write_lines_to(None)
    logging.captureWarnings(capture=False)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()

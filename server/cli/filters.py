"""Which events `parley tail` shows, and which end it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from protocol.client import Received, SessionInfo
from protocol.cursor import parse_cursor
from protocol.durable import MessageCreated, QueueChanged, TaskCompleted, TaskStarted
from protocol.events import EVENTS, MessageDelta, Sync
from server.cli.connection import MisuseError

__all__ = ["Ends", "Filters"]

_KINDS: Final = ("durable", "delta", "transient", "control")
_ROLES: Final = ("user", "assistant", "tool", "system")


class Filters(Struct, frozen=True):
    """What is shown; None where everything is."""

    types: tuple[str, ...] | None = None
    kinds: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The filters that were asked for. Raises MisuseError for what can match nothing."""
        kinds = None if options.only is None else _words("--only", options.only, _KINDS)
        if options.no_deltas:
            kinds = (kinds or frozenset(_KINDS)) - {"delta"}
        return cls(
            types=_types("--type", options.type),
            kinds=kinds,
            roles=None if options.role is None else _words("--role", options.role, _ROLES),
            pattern=_pattern(options.grep),
        )

    def passes(self, event: Received) -> bool:
        """Whether it is to be shown."""
        return (
            (self.types is None or _matches(event.event_type, self.types))
            and (self.kinds is None or _kind(event) in self.kinds)
            and (self.roles is None or _role(event) in self.roles)
            and (self.pattern is None or any(map(self.pattern.search, _texts(event))))
        )


class Ends:
    """When to stop. Begun with the session as it was before its events came."""

    def __init__(self, types: tuple[str, ...] | None, *, when_idle: bool, limit: int | None) -> None:
        self._types = types
        self._when_idle = when_idle
        self._left = limit
        #: What is known of the session, up to which event, and whether everything that was missed has come.
        self._is_answering = False
        self._waiting = 0
        self._known = 0
        self._is_synced = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The ends that were asked for."""
        return cls(_types("--until", options.until), when_idle=options.exit_when_idle, limit=options.limit)

    def begin(self, session: SessionInfo) -> None:
        """Take how the session stands; what its events up to there say is counted in it."""
        cursor = parse_cursor(session.cursor)
        self._known = cursor if isinstance(cursor, int) else cursor.seq
        self._is_answering = session.active_turn is not None
        self._waiting = session.queued or 0

    def count(self) -> None:
        """An event was shown."""
        if self._left is not None:
            self._left -= 1

    def reached(self, event: Received) -> bool:
        """Whether to stop after this event."""
        self._look(event)
        return (
            self._left == 0
            or (self._types is not None and _matches(event.event_type, self._types))
            or (self._when_idle and self._is_synced and not self._is_answering and not self._waiting)
        )

    def _look(self, event: Received) -> None:
        if isinstance(event.payload, Sync):
            self._is_synced = True
        if (event.envelope.seq or 0) <= self._known:
            return
        match event.payload:
            case TaskStarted():
                self._is_answering = True
            case TaskCompleted():
                self._is_answering = False
            case QueueChanged(change="added"):
                self._waiting += 1
            case QueueChanged(change="started"):
                # Its turn begins with the events that follow.
                self._waiting -= 1
                self._is_answering = True
            case QueueChanged(change="removed"):
                self._waiting -= 1
            case _:
                pass


def _types(option: str, given: list[str] | None) -> tuple[str, ...] | None:
    """Patterns of event types. Raises MisuseError for one that no event of this version has."""
    if given is None:
        return None
    patterns = tuple(word.strip() for words in given for word in words.split(",") if word.strip())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in EVENTS):
            raise MisuseError(f"{option}: there is no event of type {pattern!r}; there are {', '.join(EVENTS)}")
    return patterns


def _words(option: str, given: str, known: tuple[str, ...]) -> frozenset[str]:
    words = frozenset(word.strip() for word in given.split(",") if word.strip())
    for word in sorted(words - set(known)):
        raise MisuseError(f"{option}: {word!r} is none of {', '.join(known)}")
    return words


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise MisuseError(f"--grep: {text!r} is no regular expression: {error}") from None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _kind(event: Received) -> str:
    """An event's kind; one that this version does not know is durable if it has a number."""
    known = EVENTS.get(event.event_type)
    return known.kind if known is not None else "transient" if event.envelope.seq is None else "durable"


def _role(event: Received) -> str | None:
    match event.payload:
        case MessageCreated(role=role):
            return role
        case MessageDelta():
            return "assistant"
        case _:
            return None


def _texts(event: Received) -> Iterator[str]:
    """Every text in the payload, however deep."""
    pending: list[Any] = [msgspec.json.decode(event.envelope.payload)]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)

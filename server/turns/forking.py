"""Forks: a session begins as a copy of another's conversation, up to a place in it.

To retry is to fork before the last user message and to send it again there; to edit, before any, and to send another.
What is there already stays as it is: history is never rewritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.envelope import payload_json
from protocol.errors import ErrorCode, ParleyError
from protocol.events import DirectAgentCall, MessageCreated, Role, ToolCallRequest
from protocol.ids import RANDOM_BITS, format_timestamp, uuid7
from protocol.parts import FinishReason
from server.agents.directory import AgentDirectory
from server.agents.interface import AgentDefinition
from server.clock import Clock
from server.turns.limits import LimitSettings
from storage.forks import Copy, Forks, NewFork, Place, SourceMessage
from storage.ids import new_id
from storage.sessions import Session, Sessions

__all__ = ["Fork", "ForkKind", "Forked", "Forking", "whole_steps"]

ForkKind: TypeAlias = Literal["fork", "retry", "edit"]

_TITLES: Final = {"fork": "Fork", "retry": "Retry", "edit": "Edit"}
_MAX_TITLE: Final = 500
#: Messages that were cut short may hold calls that nobody was asked to run; they have no results, and need none.
_CUT_SHORT: Final = frozenset({"cancelled", "error", "interrupted"})

_calls: Final = msgspec.json.Decoder(list[ToolCallRequest])


class Fork(Struct, frozen=True, kw_only=True):
    """What is asked for. `at`: the copy goes up to this event of the session; `message_id`: up to this message.

    With `key` a repeat finds what the first request made.
    """

    kind: ForkKind
    user_id: str
    at: int | None = None
    message_id: UUID | None = None
    title: str | None = None
    alias: str | None = None
    content: str | None = None
    key: str | None = None


class Forked(Struct, frozen=True, kw_only=True):
    """The fork; `content` is what is to be said in it now, to `agent_type` alone if it was said so before."""

    session: Session
    content: str | None = None
    agent_type: str | None = None


class Forking:
    """Makes forks. Whoever calls has made sure that the user may read the session."""

    def __init__(
        self, sessions: Sessions, forks: Forks, directory: AgentDirectory, settings: LimitSettings, clock: Clock
    ) -> None:
        self._sessions = sessions
        self._forks = forks
        self._directory = directory
        self._settings = settings
        self._clock = clock

    async def fork(self, source: Session, fork: Fork) -> Forked:
        """Make it, or find it when it was made before under the same key.

        Raises ParleyError: NOT_FOUND (no such message), INVALID (a message that is no user's to edit), TOO_LARGE,
        CONFLICT, LIMIT_REACHED, SESSION_GONE.
        """
        key = source.session_id
        said = await self._said(source, fork)
        at = said.seq - 1 if said is not None else await self._place(source, fork)
        found = await self._forks.source(key, at, self._settings.fork_messages)
        messages = whole_steps(found)
        if len(messages) < len(found):
            at = found[len(messages)].seq - 1
        session_id = _id_of(source, fork)
        new = await self._forks.create(
            NewFork(
                session_id=session_id,
                owner=fork.user_id,
                source=key,
                at=at,
                agent=await self._forks.acting_agent(key, at),
                title=_title(source, fork),
                alias=fork.alias,
                copies=list(_copies(messages, await self._agents(source, messages))),
                body_hash=hashlib.sha256(msgspec.json.encode(fork)).digest(),
                now=self._clock.now(),
                most_sessions=self._settings.sessions,
            )
        )
        made = await self._sessions.resolve(fork.user_id, str(session_id))
        if fork.kind == "retry" and not new:
            # Others may have said more since: what the first request sent again is what followed the copy then.
            said = await self._forks.user_message_after(key, made.forked_at or 0)
        if said is None:
            return Forked(session=made)
        content = said.content if fork.content is None else fork.content
        return Forked(session=made, content=content, agent_type=await self._addressee(key, said))

    async def _said(self, source: Session, fork: Fork) -> Place | None:
        """The user's message that is sent again, or edited."""
        if fork.kind == "fork":
            return None
        if fork.kind == "retry":
            last = await self._forks.last_user_message(source.session_id)
            if last is None:
                raise ParleyError(ErrorCode.CONFLICT, "nothing was said in this session that could be sent again")
            return last
        message = await self._message(source, fork)
        if message.role != "user":
            raise ParleyError(ErrorCode.INVALID, f"only users' messages can be edited; this is of role {message.role}")
        return message

    async def _place(self, source: Session, fork: Fork) -> int:
        if fork.message_id is not None:
            return (await self._message(source, fork)).seq
        return source.seq if fork.at is None else min(fork.at, source.seq)

    async def _message(self, source: Session, fork: Fork) -> Place:
        place = None
        if fork.message_id is not None:
            place = await self._forks.place(source.session_id, fork.message_id)
        if place is None:
            raise ParleyError(ErrorCode.NOT_FOUND, "there is no such message in this session's conversation")
        return place

    async def _addressee(self, session_id: UUID, said: Place) -> str | None:
        body = await self._forks.direct_agent(session_id, said.seq)
        if body is None:
            return None
        call = msgspec.json.decode(body, type=DirectAgentCall)
        return call.agent_type if call.message_id == said.message_id else None

    async def _agents(self, source: Session, messages: Iterable[SourceMessage]) -> dict[str, AgentDefinition]:
        """Who the agents of the messages are; one that there is no more has its type for a name."""
        types = {message.agent_type for message in messages if message.agent_type is not None}
        known = {definition.type: definition for definition in await self._directory.definitions(source.session_id)}
        return {name: known.get(name) or AgentDefinition(type=name, name=name) for name in types}


def whole_steps(messages: Sequence[SourceMessage]) -> Sequence[SourceMessage]:
    """The messages without the last step, if that has a call without result: no model takes such a history."""
    results = {message.call_id for message in messages if message.role == "tool"}
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if message.tool_calls is None or message.finish_reason in _CUT_SHORT:
            continue
        if any(UUID(call.call_id) not in results for call in _calls.decode(message.tool_calls)):
            return messages[:place]
        break
    return messages


def _copies(messages: Iterable[SourceMessage], agents: dict[str, AgentDefinition]) -> Iterator[Copy]:
    """The messages as the fork has them: numbered from 1 on, all under new ids, at their old times."""
    ids: dict[UUID, UUID] = {}
    for seq, message in enumerate(messages, start=1):
        calls = None
        if message.tool_calls is not None:
            calls = _calls.decode(message.tool_calls)
            ids.update({UUID(call.call_id): new_id() for call in calls})
            calls = [msgspec.structs.replace(call, call_id=str(ids[UUID(call.call_id)])) for call in calls]
        copy = msgspec.structs.replace(
            message,
            message_id=new_id(),
            seq=seq,
            tool_calls=None if calls is None else msgspec.json.encode(calls),
            call_id=None if message.call_id is None else ids.setdefault(message.call_id, new_id()),
        )
        agent = None if message.agent_type is None else agents[message.agent_type]
        yield Copy(message=copy, body=payload_json(_event(copy, agent, calls)))


def _event(
    message: SourceMessage, agent: AgentDefinition | None, calls: list[ToolCallRequest] | None
) -> MessageCreated:
    return MessageCreated(
        message_id=message.message_id,
        role=cast("Role", message.role),
        content=message.content,
        timestamp=format_timestamp(message.created_at),
        agent_id=None if agent is None else agent.agent_id,
        agent_name=None if agent is None else agent.name,
        agent_type=message.agent_type,
        finish_reason=cast("FinishReason | None", message.finish_reason),
        reasoning=message.reasoning,
        tool_calls=calls,
        call_id=None if message.call_id is None else str(message.call_id),
        name=message.name,
    )


def _title(source: Session, fork: Fork) -> str:
    if fork.title is not None:
        return fork.title
    title = _TITLES[fork.kind]
    if source.title is None:
        return title
    title = f"{title} of {source.title}"
    return title if len(title) <= _MAX_TITLE else f"{title[: _MAX_TITLE - 1]}…"


def _id_of(source: Session, fork: Fork) -> UUID:
    """The fork's id: with a key one and the same for all deliveries of the request, and nobody else's."""
    if fork.key is None:
        return new_id()
    digest = hashlib.sha256(f"{source.session_id}\0{fork.user_id}\0{fork.key}".encode()).digest()
    return uuid7(source.session_id.int >> 80, int.from_bytes(digest, "big") % (1 << RANDOM_BITS))

"""What the slash commands of a chat do."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from protocol.client import AgentInfo, SessionInfo
from protocol.commands import OnBusy
from protocol.errors import ErrorCode, ParleyError
from server.cli.chat.commands import KEYS, Command, Commands
from server.cli.chat.opening import latest_messages, open_session
from server.cli.chat.status import TRANSPORTS
from server.cli.connection import Choice, MisuseError
from server.cli.listing import agents_text, name_of, sessions_table
from server.cli.text import one_line

if TYPE_CHECKING:
    from server.cli.chat.talk import Talk

__all__ = ["Actions"]

_LISTED: Final = 20
_CHOICES: Final[dict[Choice, str]] = {
    "auto": "what works",
    "ws": "WebSocket",
    "sse": "SSE and POST",
    "ndjson": "NDJSON and POST",
}


class Actions:
    """The commands of a chat, and what they need to know to complete their arguments."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._agents: list[AgentInfo] = []
        self._sessions: list[SessionInfo] = []
        self.commands = Commands(
            [
                Command("help", "", "this list", self._help),
                Command("stop", "", "stop the answer", self._stop),
                Command("now", "TEXT", "stop the answer, and say this next", self._now),
                Command("steer", "TEXT", "tell the agent this while it works", self._steer),
                Command("agent", "[TYPE]", "who answers from now on", self._agent, self._agent_types),
                Command("agents", "", "who there is", self._list_agents),
                Command("sessions", "[WORDS]", "your sessions, or those with these words in them", self._list_sessions),
                Command("open", "SESSION", "go to another session", self._open, self._session_names),
                Command("new", "[NAME]", "go to a new session", self._new),
                Command("history", "[N|all]", "the last messages again", self._history),
                Command("queue", "[drop N]", "what waits; take one back", self._queue),
                Command("who", "", "who is in the session, and whose tools run where", self._who),
                Command("transport", "[NAME]", "how to be connected", self._transport, _CHOICES.items),
                Command("quit", "", "leave", self._quit),
            ]
        )

    async def learn(self) -> None:
        """Find out which agents and sessions there are; without them nothing is completed, and nothing else is lost."""
        with suppress(ParleyError, ConnectionError, TimeoutError):
            self._agents = await self._talk.server.agents()
            self._sessions = (await self._talk.server.sessions(limit=100)).sessions

    def _agent_types(self) -> Iterable[tuple[str, str]]:
        return [(agent.type, one_line(agent.description, 60)) for agent in self._agents]

    def _session_names(self) -> Iterable[tuple[str, str]]:
        return [(name_of(session), one_line(session.title or "", 60)) for session in self._sessions]

    def _lines(self, text: str) -> None:
        self._talk.conversation.lines(text)

    def _note(self, text: str, style: str = "dim") -> None:
        self._talk.conversation.note(text, style)

    # --- the commands

    async def _help(self, _: str) -> None:
        self._lines(f"{self.commands.help()}\n\n{KEYS}\n\nTo say something that begins with a slash, begin with two.")

    async def _stop(self, _: str) -> None:
        if not self._talk.stop():
            self._note("nothing is being answered")

    async def _now(self, text: str) -> None:
        self._say(text, "interrupt")

    async def _steer(self, text: str) -> None:
        self._say(text, "steer")

    def _say(self, text: str, on_busy: OnBusy) -> None:
        if text:
            self._talk.say(text, on_busy)
        else:
            self._note("there is nothing to say: the text comes behind the command", "yellow")

    async def _who(self, _: str) -> None:
        client = self._talk.client
        lines = []
        for one in () if client is None else client.clients:
            you = " (you)" if client is not None and one.client_id == client.client_id else ""
            tools = f": {', '.join(one_line(tool, 60) for tool in one.tools)}" if one.tools else ""
            over = TRANSPORTS.get(one.transport, one_line(one.transport, 20))
            lines.append(f"{one_line(one.client_id, 60)}{you}, {one.role}, {over}{tools}")
        self._lines("\n".join(lines) or "nobody is known to be here")

    async def _agent(self, name: str) -> None:
        client, conversation = self._talk.client, self._talk.conversation
        if not name or client is None:
            self._note(f"{conversation.agent} answers; another one with /agent TYPE")
            return
        if name == conversation.agent:
            self._note(f"{name} answers already")
            return
        try:
            await client.switch_agent(name)
        except ParleyError as error:
            if error.code is ErrorCode.UNKNOWN_AGENT:
                await self._list_agents("")
            raise

    async def _list_agents(self, _: str) -> None:
        self._agents = await self._talk.server.agents()
        self._lines(agents_text(self._agents, self._talk.conversation.agent))

    async def _list_sessions(self, words: str) -> None:
        talk = self._talk
        page = await talk.server.sessions(words or None, limit=_LISTED)
        if not page.sessions:
            self._note("no session is found" if words else "you have no sessions")
            return
        rest = page.total - len(page.sessions)
        talk.conversation.table(sessions_table(page.sessions, talk.painter.width))
        self._note(f"{f'and {rest} more; ' if rest else ''}go to one with /open SESSION")

    async def _open(self, name: str) -> None:
        if not name:
            self._note("/open needs the name or the id of a session; /sessions lists yours", "yellow")
            return
        session = await self._talk.server.session(name)
        await self._go(session.alias or str(session.id))

    async def _new(self, name: str) -> None:
        if name:
            with suppress(ParleyError):
                await self._talk.server.session(name)
                self._note(f"there is a session {name} already; go to it with: /open {name}", "yellow")
                return
        await self._go(name or None)

    async def _go(self, name: str | None) -> None:
        try:
            opened = await open_session(self._talk.server, name)
        except MisuseError as error:
            self._note(str(error), "yellow")
            return
        await self._talk.go_to(opened)
        await self.learn()

    async def _history(self, amount: str) -> None:
        talk = self._talk
        if amount not in {"", "all"} and not amount.isdecimal():
            self._note("/history takes a number, or all", "yellow")
            return
        session = await talk.server.session(talk.opened.session.id)
        count = session.message_count if amount == "all" else int(amount or talk.options.history)
        messages, _ = await latest_messages(talk.server, session, count)
        talk.conversation.past(messages)

    async def _queue(self, argument: str) -> None:
        client, waiting = self._talk.client, list(self._talk.conversation.waiting.items())
        word, _, number = argument.partition(" ")
        if not argument:
            lines = [f"{place}. {one_line(text, 200)}" for place, (_, text) in enumerate(waiting, start=1)]
            self._lines("\n".join(lines) or "nothing waits")
        elif client is not None and word == "drop" and number.isdecimal() and 0 < int(number) <= len(waiting):
            await client.withdraw(waiting[int(number) - 1][0])
        else:
            self._note("/queue lists what waits, with numbers; /queue drop NUMBER takes one back", "yellow")

    async def _transport(self, name: str) -> None:
        talk = self._talk
        if not name:
            now = talk.client.transport if talk.client is not None else None
            self._note(f"connected over {TRANSPORTS.get(now or '', 'nothing')}; asked for: {talk.transport}")
        elif name not in _CHOICES:
            self._note(f"/transport takes one of {', '.join(_CHOICES)}", "yellow")
        else:
            before, talk.transport = talk.transport, name
            assert talk.client is not None, "there is a client from the beginning"
            cursor = talk.client.cursor
            try:
                await talk.attach(cursor)
            except (ParleyError, ConnectionError, TimeoutError):
                talk.transport = before
                await talk.attach(cursor)
                raise

    async def _quit(self, _: str) -> None:
        self._talk.leave()

"""A server whose agents call what they are told to, and pages that run tools."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

from playwright.async_api import Page

from server.agents.interface import (
    ALL_TOOLS,
    AgentContext,
    AgentYield,
    FunctionAgent,
    ToolCallDelta,
    UsageReport,
    agent,
)
from server.agents.registry import Registry
from tests.browser.site import Site

_CALL = re.compile(r"^call (\S+) (\{.*\})$", re.MULTILINE)


def call(name: str, **arguments: Any) -> str:
    """A line that makes an agent of the workshop call a tool; several of them make one step."""
    return f"call {name} {json.dumps(arguments)}"


class Workshop(Site):
    """Its agents are `worker` and `helper`: the one may hand over to the other, and ask it.

    A message of lines as `call` makes them is a step with these calls, and what came of them is the answer. `hold` is
    answered after `release()`, anything else at once.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let the turns that hold go on."""
        self._released.set()

    def _registry(self) -> Registry:
        return Registry([self._agent("worker", "helper"), self._agent("helper")], [], default="worker")

    def _agent(self, name: str, *others: str) -> FunctionAgent:
        more = {"handoffs": others, "delegates": others, "extra_tools": True}

        @agent(type=name, name=name.capitalize(), description=f"The {name}.", tools=[ALL_TOOLS], **more)
        async def work(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
            last = context.history[-1]
            results = []
            for message in reversed(context.history):
                if message.role != "tool":
                    break
                results.append(message.content)
            yield UsageReport(prompt_tokens=100, completion_tokens=10)
            if results:
                yield f"Done: {'; '.join(reversed(results))}"
            elif calls := _CALL.findall(last.content):
                yield "On it."
                for index, (tool, arguments) in enumerate(calls):
                    yield ToolCallDelta(index=index, call_id=f"call-{index}", name=tool)
                    for at in range(0, len(arguments), 16):
                        yield ToolCallDelta(index=index, arguments=arguments[at : at + 16])
            elif last.content == "hold":
                yield "Holding"
                await self._released.wait()
                yield " on."
            else:
                yield f"You said: {last.content}"

        return work


class Editor:
    """A page without the console, which runs tools by the library, as an editor's plugin would."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(
        self, url: str, session: str, *tools: dict[str, Any], client: str = "editor", **options: Any
    ) -> None:
        """Join a session and offer tools; each call waits until `answer`, unless `instead` says what comes of it."""
        await self.page.goto(url + "favicon.svg")
        await self.page.evaluate(
            """async ({ session, tools, options }) => {
                const { connect } = await import("/parley.js");
                globalThis.calls = [];
                globalThis.session = connect({ session, ...options });
                await globalThis.session.registerTools(tools.map(({ instead, ...tool }) => ({ ...tool, run: (call) => {
                  if (instead !== undefined) { calls.push({ call }); return instead; }
                  return new Promise((resolve, reject) => calls.push({ call, resolve, reject }));
                } })));
                await globalThis.session.ready;
            }""",
            {"session": session, "tools": list(tools), "options": {"clientId": client, **options}},
        )

    async def called(self, times: int = 1) -> list[dict[str, Any]]:
        """Wait until so many calls have come; what is to be run."""
        await self.page.wait_for_function("times => calls.length >= times", arg=times)
        found: list[dict[str, Any]] = await self.page.evaluate(
            "() => calls.map(({ call: { name, arguments: given, call_id } }) => ({ name, given, call_id }))"
        )
        return found

    async def progress(self, **progress: Any) -> None:
        """Tell how far the last call is."""
        await self.page.evaluate("progress => calls.at(-1).call.progress(progress)", progress)

    async def answer(self, result: Any) -> None:
        """Give the last call its result."""
        await self.page.evaluate("result => calls.at(-1).resolve(result)", result)

    async def leave(self) -> None:
        """Go, without a word."""
        await self.page.close()

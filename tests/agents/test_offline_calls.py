from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.events import ToolCallRequest
from server.agents.interface import Finish, HistoryMessage
from server.agents.offline.calling import plan
from server.agents.offline.scene import Scene
from tests.agents.support import Clock, assistant, context, result, run, tool_context
from tests.agents.test_offline import AGENT, REGISTRY, TOOLS, ask

READ, CLOCK = {"path": "README.md"}, dict[str, str]()


@pytest.mark.parametrize(
    ("request_", "calls"),
    [
        ("call calculate 6*7", [("calculate", {"expression": "6*7"})]),
        ("calculate 6*7", [("calculate", {"expression": "6*7"})]),
        ("What is 6 * 7?", [("calculate", {"expression": "6 * 7"})]),
        ("what time is it?", [("clock", {})]),
        ("What's the time in Europe/Paris?", [("clock", {"timezone": "Europe/Paris"})]),
        ("use the clock tool", [("clock", CLOCK)]),
        ('use tool clock {"timezone": "UTC"}', [("clock", {"timezone": "UTC"})]),
        ("call clock and calculate 2+2", [("clock", CLOCK), ("calculate", {"expression": "2+2"})]),
        (
            "what is 6*7, what is 3*4 and what is 1+1?",
            [("calculate", {"expression": expression}) for expression in ("6*7", "3*4", "1+1")],
        ),
        (
            'call calculate {"expression": "1"}, call clock {"timezone": "UTC"}',
            [("calculate", {"expression": "1"}), ("clock", {"timezone": "UTC"})],
        ),
        ("please read the file README.md.", [("read_file", READ)]),
        ("open the file Makefile", [("read_file", {"path": "Makefile"})]),
        (
            "read src/a.py lines 3 to 17",
            [("read_file", {"path": "src/a.py", "start_line": 3, "end_line": 17})],
        ),
        ("list files", [("list_files", {"path": "."})]),
        ("list the files in src/ recursively", [("list_files", {"path": "src/", "recursive": True})]),
        ("run ls -la", [("execute_command", {"command": "ls -la"})]),
        ("$ git status", [("execute_command", {"command": "git status"})]),
        ("grep foo bar", [("search_in_code", {"query": "foo bar"})]),
        ("hand over to the coder", [("handoff", {"agent_type": "coder"})]),
        # A separator counts only if a call follows it.
        ("write a.md with this, that and more!", [("write_file", {"path": "a.md", "content": "this, that and more!"})]),
        ("run ls and sleep", [("execute_command", {"command": "ls and sleep"})]),
        ('call calculate {"expression": "1 and clock"}', [("calculate", {"expression": "1 and clock"})]),
        ('call text_statistics {"text": "a then clock, and clock"}', [
            ("text_statistics", {"text": "a then clock, and clock"})
        ]),
    ],
)  # fmt: skip
async def test_calls_of_one_step(request_: str, calls: list[tuple[str, Any]]) -> None:
    step = await ask(request_)
    assert step.calls == calls
    assert step.outputs[-1] == Finish("tool_calls")
    assert all(f"`{name}`" in step.text for name, _ in calls)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ("list files then read the file README.md", [["list_files"], ["read_file"]]),
        (
            "call clock and list files, then call clock; run ls",
            [["clock", "list_files"], ["clock"], ["execute_command"]],
        ),
        ("read the file a.md. After that delete the file a.md", [["read_file"], ["delete_file"]]),
        ("tell me a story then call clock", []),
        ("echo call clock", []),
        ("I would like to read more", []),
    ],
)
def test_steps_of_a_plan(request_: str, names: list[list[str]]) -> None:
    steps = plan(Scene(context(AGENT, request_, tools=TOOLS), ""))
    assert [[call.name for call in step] for step in steps] == names


async def test_a_plan_is_made_step_by_step_and_then_reported() -> None:
    request = "call clock then calculate 6*7"
    first = await ask(request)
    history: list[Any] = [request, assistant(first.text, *first.requests), result(first.requests[0], "noon")]
    second = await ask(*history)
    assert second.calls == [("calculate", {"expression": "6*7"})]
    history += [assistant(second.text, *second.requests), result(second.requests[0], "42")]
    report = await ask(*history)
    assert report.text == "`clock` returned: noon\n\n`calculate` returned: 42"
    assert report.outputs[-1] == Finish("stop")


async def test_a_message_in_the_middle_of_a_turn_is_what_is_answered() -> None:
    first = await ask("call clock then calculate 6*7")
    step = await ask(
        "call clock then calculate 6*7", assistant("", *first.requests), result(first.requests[0], "noon"), "echo stop"
    )
    assert step.text == "stop"
    assert not step.calls


async def test_the_tools_that_it_calls_can_be_run() -> None:
    step = await ask("what time is it, calculate 6*7 and text_statistics one two")
    values = [
        await REGISTRY.server_tools[request.name].call(request.arguments, tool_context(Clock()))
        for request in step.requests
    ]
    assert values[1:] == [42, {"words": 2, "characters": 7, "lines": 1}]


async def test_call_ids_are_the_same_when_a_step_is_run_again() -> None:
    ids = [
        [request.call_id for request in (await ask("call clock and calculate 1", attempt=n)).requests] for n in (1, 2)
    ]
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]


async def test_a_tool_that_is_not_there_is_refused_with_those_that_are() -> None:
    coder = REGISTRY.get("ask")
    step = await run(coder, context(coder, "what time is it", tools=REGISTRY.tools_for(coder.definition)))
    assert not step.calls
    assert step.text == (
        "I cannot call `clock`: the tools that the ask agent has here are `read_file`, `list_files`, `search_in_code`."
    )
    none = await run(AGENT, context(AGENT, 'use tool nope {"a": 1}'))
    assert none.text.endswith("has here are none.")


async def test_arguments_that_are_no_json_are_sent_as_they_are() -> None:
    step = await ask('call calculate {"expression": ')
    assert step.requests[0].arguments == '{"expression":'


async def test_plain_words_fill_the_main_parameter() -> None:
    spec = next(spec for spec in TOOLS if spec.name == "execute_command")
    numeric = type(spec)(
        name="wait", description="d", parameters={"type": "object", "properties": {"n": {"type": "integer"}}}
    )
    bare = type(spec)(name="stop", description="d", parameters={"type": "object"})
    for request, arguments in (("call wait 7", {"n": 7}), ("call wait long", {"n": "long"}), ("call stop now", {})):
        step = await run(AGENT, context(AGENT, request, tools=[numeric, bare]))
        assert json.loads(step.requests[0].arguments) == arguments


def tool_result(content: str) -> tuple[str, HistoryMessage, HistoryMessage]:
    call = ToolCallRequest(call_id="c", name="run_it", arguments="{}")
    return "call clock", assistant("", call), result(call, content)


@pytest.mark.parametrize(
    ("content", "report"),
    [
        ("", "`run_it` returned nothing."),
        ("ok", "`run_it` returned: ok"),
        ("a\nb", "`run_it` returned:\n\n```\na\nb\n```"),
        ("a\n```\nb\n", "`run_it` returned:\n\n````\na\n```\nb\n````"),
        ("rejected by the user: too dangerous", "`run_it` returned: rejected by the user: too dangerous"),
    ],
)
async def test_results_are_reported_as_they_came(content: str, report: str) -> None:
    assert (await ask(*tool_result(content))).text == report


async def test_a_long_result_is_cut_between_characters() -> None:
    text = (await ask(*tool_result("👩🏽‍💻" * 3000))).text
    assert "12000 characters" in text
    shown = text.split("```")[1].strip()
    assert shown == "👩🏽‍💻" * (len(shown) // 4)
    assert len(shown) < 10_000


@pytest.mark.parametrize(
    "request_", ["call clock" + " and call clock" * 60, "./" * 500, "what is " + "1 " * 490, " , " * 333]
)
async def test_long_and_odd_requests_cost_little(request_: str) -> None:
    step = await ask(request_)
    assert step.outputs[-1] in (Finish("stop"), Finish("tool_calls"))

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.client_tools import CLIENT_TOOLS
from server.agents.config import AgentsConfig, OfflineConfig
from server.agents.interface import AgentError, Finish, Text, ToolCallDelta, UsageReport
from server.agents.offline import OFFLINE, OfflineAgent
from server.agents.offline.calling import PHRASES, plan
from server.agents.offline.intents import INTENTS, decide
from server.agents.offline.samples import EMOJI, MARKDOWN, TOPICS
from server.agents.offline.scene import Scene
from server.agents.offline.tokens import tokens
from server.agents.registry import ASK_AGENT_TOOL, HANDOFF_TOOL, Registry
from tests.agents.support import Clock, Step, assistant, context, result, run

AGENT = OfflineAgent(OFFLINE, OfflineConfig(speed=0))
REGISTRY = Registry.build(AgentsConfig(entry_points=False))
TOOLS = REGISTRY.tools_for(OFFLINE)
HINT = OfflineConfig().hint


async def ask(*history: Any, **more: Any) -> Step:
    return await run(AGENT, context(AGENT, *history, tools=TOOLS, **more))


@pytest.mark.feature("A01")
async def test_regression_23_streaming_is_not_one_final_chunk() -> None:
    step = await ask("write 500 words about rivers")
    pieces = [output.text for output in step.outputs if isinstance(output, Text)]
    assert len(pieces) > 400
    assert max(len(piece.strip()) for piece in pieces) <= 6
    assert len("".join(pieces).split()) == 500


@pytest.mark.feature("A01")
async def test_reasoning_streams_before_the_answer() -> None:
    step = await ask("think about old trees")
    kinds = [type(output).__name__ for output in step.outputs]
    assert kinds.count("Reasoning") > 20
    assert kinds == sorted(kinds, key=["Reasoning", "Text", "UsageReport", "Finish"].index)
    assert "old trees" in step.reasoning
    assert "old trees" in step.text


@pytest.mark.feature("A01")
async def test_arguments_stream_call_after_call() -> None:
    step = await ask('use tool write_file {"path": "a.md", "content": "one two three four five"} and call clock')
    deltas = [output for output in step.outputs if isinstance(output, ToolCallDelta)]
    assert [delta.index for delta in deltas] == sorted(delta.index for delta in deltas)
    first = [delta for delta in deltas if delta.index == 0]
    assert (first[0].name, first[0].arguments) == ("write_file", "")
    assert len(first) > 8
    assert all(delta.name is None and delta.call_id is None for delta in first[1:])
    assert step.outputs[-1] == Finish("tool_calls")
    assert len({request.call_id for request in step.requests}) == 2


@pytest.mark.parametrize("example", [intent.example for intent in INTENTS])
async def test_every_intent_does_what_help_says(example: str) -> None:
    request = example
    scene = Scene(context(AGENT, request, tools=TOOLS), HINT)
    first = next(intent for intent in INTENTS if intent.pattern.search(request))
    assert first.example == example
    if not example.startswith("fail"):
        reply = decide(scene)
        assert reply.error is None
        assert not reply.calls
        assert "do not understand" not in (await ask(request)).text


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.tool)
async def test_every_phrase_calls_its_tool(phrase: Any) -> None:
    step = await ask(phrase.example)
    assert [name for name, _ in step.calls] == [phrase.tool]


async def test_help_lists_every_intent_and_the_tools_that_are_there() -> None:
    text = (await ask("help")).text
    assert all(f"`{intent.example}`" in text for intent in INTENTS)
    assert all(f"`{phrase.example}`" in text for phrase in PHRASES)
    assert HINT in text
    bare = (await run(AGENT, context(AGENT, "help"))).text
    assert not any(f"calls `{phrase.tool}`" in bare for phrase in PHRASES)


@pytest.mark.parametrize("request_", ["hello", "Good morning!", "blah blah", "x" * 50_000, "", "   "])
async def test_it_says_plainly_that_no_model_is_configured_and_what_to_do(request_: str) -> None:
    text = (await ask(request_)).text
    assert "no model is configured" in text
    assert "`help`" in text
    assert HINT in text


async def test_the_hint_is_the_configurations() -> None:
    agent = OfflineAgent(OFFLINE, OfflineConfig(speed=0, hint="Ask Ada."))
    assert (await run(agent, context(agent, "hello"))).text.endswith("\n\nAsk Ada.")


@pytest.mark.parametrize("name", ["orchestrator", "coder", "architect", "debug", "ask", "universal"])
@pytest.mark.feature("S29")
async def test_it_says_whom_it_stands_in_for(name: str) -> None:
    agent = REGISTRY.get(name)
    step = await run(agent, context(agent, "who are you"))
    assert step.text.startswith(f"I am the {name} agent; no model is configured")
    assert agent.definition.description in step.text


async def test_it_works_without_any_history() -> None:
    assert "no message to answer" in (await run(AGENT, context(AGENT))).text


@pytest.mark.parametrize("word", [*TOPICS, "SSE", "steering", "WebSockets", "reconnecting", "queues"])
async def test_it_explains_the_server(word: str) -> None:
    assert (await ask(f"explain {word}")).text in TOPICS.values()


@pytest.mark.parametrize("topic", TOPICS)
def test_what_an_explanation_suggests_is_understood(topic: str) -> None:
    suggested = re.findall(r"`((?:call|what|list|read|count|write|ask|hand) [^`]+)`", TOPICS[topic])
    assert bool(suggested) is (topic in {"transport", "resume", "tool", "approval", "agent"})
    for request in suggested:
        scene = Scene(context(AGENT, request, tools=TOOLS), HINT)
        calls = [call.name for step in plan(scene) for call in step]
        assert set(calls) <= {*REGISTRY.server_tools, *CLIENT_TOOLS, HANDOFF_TOOL, ASK_AGENT_TOOL}
        assert calls or request.startswith("count")


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("How does resuming work?", "resume"),
        ("what is a cursor", "cursor"),
        ("how do I cancel", "cancel"),
        ("Tell me about the transports, please", "transport"),
        ("How can I reconnect?", "resume"),
    ],
)
async def test_questions_about_the_server(question: str, topic: str) -> None:
    assert (await ask(question)).text == TOPICS[topic]


@pytest.mark.parametrize(
    "text", ["x", "  two  spaces \n", "line\nline", "😀 é 👩🏽‍💻", "read the file a.md", "y" * 100_000]
)
async def test_echo_gives_the_text_back_unchanged(text: str) -> None:
    assert (await ask(f"echo {text}|")).text == f"{text}|"


async def test_samples() -> None:
    assert (await ask("show markdown")).text == MARKDOWN
    assert (await ask("Show me some emoji")).text == EMOJI
    assert (await ask("show a table")).text.startswith("| transport |")
    assert (await ask("give me code")).text.startswith("```python\n")
    assert (await ask("show a list")).text.startswith("1. ")


@pytest.mark.parametrize(
    ("request_", "speed"),
    [
        ("count to 5 slowly", 5),
        ("please count to 5 very slowly", 1),
        ("count to 5 quickly", 500),
        ("count to 5 at 20 tokens per second", 20),
        ("count to 5 at 20/s", 20),
        ("count to 5 at 0 per second", 0.1),
        ("count to 5", None),
        ("write 5 words about slow rivers", 5),
    ],
)
def test_speed_and_length_come_from_the_words(request_: str, speed: float | None) -> None:
    assert decide(Scene(context(AGENT, request_), HINT)).speed == speed


async def test_a_slow_count_takes_its_time_by_the_injected_clock() -> None:
    clock = Clock()
    step = await ask("count to 1000 slowly", clock=clock)
    assert step.text.split() == [str(number) for number in range(1, 1001)]
    assert sum(clock.sleeps) == pytest.approx(999 / 5, abs=0.5)


async def test_the_configured_speed_is_kept() -> None:
    clock = Clock()
    agent = OfflineAgent(OFFLINE, OfflineConfig(speed=50))
    await run(agent, context(agent, "count to 101", clock=clock))
    assert sum(clock.sleeps) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("words", [1, 2, 7, 12, 13, 500])
async def test_exactly_so_many_words_are_written(words: int) -> None:
    text = (await ask(f"write {words} words about the sea, quickly")).text
    assert len(text.split()) == words
    assert text.endswith(".")
    assert "quickly" not in text


async def test_what_is_too_long_ends_with_length() -> None:
    step = await ask("write 20001 words about rivers")
    assert len(step.text.split()) == 20_000
    assert step.outputs[-1] == Finish("length")
    assert (await ask("write 20 words")).outputs[-1] == Finish("stop")


async def test_regression_14_a_failure_is_an_error_and_never_a_message() -> None:
    with pytest.raises(AgentError) as caught:
        await ask("fail")
    assert (caught.value.code, caught.value.retryable) == ("requested", False)
    late = "This sentence is the last one before the failure. "
    stream = AGENT.run(context(AGENT, "fail late"))
    said = [await anext(stream) for _ in tokens(late)]
    assert said == [Text(piece) for piece in tokens(late)]
    with pytest.raises(AgentError):
        await anext(stream)


async def test_a_retryable_failure_heals_with_the_next_attempt() -> None:
    with pytest.raises(AgentError) as caught:
        await ask("fail once")
    assert caught.value.retryable
    assert (await ask("fail once", attempt=2)).text == "Attempt 2 succeeded."


HISTORY = (
    "first words",
    assistant("an answer about rivers", agent_type="coder"),
    "More about Rivers",
    assistant("nothing", agent_type="ask"),
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what did I say first?", "First you said:\n\n> first words"),
        ("What was it... what did I ask you first", "First you said:\n\n> first words"),
        ("what did I just say?", "Before this you said:\n\n> More about Rivers"),
        ("How many messages are there?", "There are 5 messages with this one: 3 from you, 2 from agents and 0 tool"),
        ("search for rivers", "2 messages with `rivers`:\n\n2. coder: an answer about rivers\n3. you: More about"),
        ("did I mention RIVERS?", "2 messages with `rivers`"),
        ("find zebra", "I am Parley's offline agent"),
        ("search our conversation for zebra", "No earlier message holds `zebra`."),
    ],
)
async def test_it_answers_from_the_sessions_own_history(question: str, answer: str) -> None:
    assert (await ask(*HISTORY, question)).text.startswith(answer)


async def test_the_question_is_never_its_own_answer() -> None:
    assert (await ask("what did I say first?")).text == "This is your first message in this session."
    assert (await ask("what did I say last?")).text == "You have said nothing before this."
    assert (await ask("search for rivers")).text == "No earlier message holds `rivers`."
    assert "nothing to summarise" in (await ask("summarise")).text


async def test_a_summary_names_messages_agents_and_tools() -> None:
    call = (await ask("call clock")).requests[0]
    text = (await ask(*HISTORY, "call clock", assistant("", call), result(call, "noon"), "summarize, please")).text
    assert "- first words\n- More about Rivers\n- call clock\n" in text
    assert "Agents: ask, coder, offline." in text
    assert "Tools: clock." in text
    assert "1 tool result. Tools were called 1 time." in text
    many = (await ask(*[f"message {number}" for number in range(20)], "summary")).text
    assert "- (8 earlier messages)\n- message 8\n" in many


async def test_usage_is_reported_once_before_the_end() -> None:
    step = await ask("x" * 400)
    assert [type(output) for output in step.outputs[-2:]] == [UsageReport, Finish]
    report = step.outputs[-2]
    assert report == UsageReport(prompt_tokens=100, completion_tokens=len(step.outputs) - 2)


EXAMPLES = st.sampled_from([*(intent.example for intent in INTENTS), *(phrase.example for phrase in PHRASES)])


@given(st.lists(EXAMPLES | st.text(max_size=40), min_size=1, max_size=4))
async def test_the_same_history_and_attempt_give_the_same_step(said: list[str]) -> None:
    async def outcome() -> object:
        try:
            return (await ask(*said)).outputs
        except AgentError as error:
            return (error.code, error.message, error.retryable)

    assert await outcome() == await outcome()

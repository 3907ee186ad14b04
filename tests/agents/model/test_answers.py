"""Answers of every shape that endpoints send, over a real socket."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.interface import AgentOutput, Finish, Reasoning, Text, ToolCallDelta, ToolSpec, UsageReport
from server.agents.model import endpoint as endpoint_module
from server.agents.model.chunks import Events
from server.agents.model.errors import ModelError, Where
from server.agents.model.names import ToolNames
from server.agents.model.reader import AnswerReader
from tests.agents.model.support import bench
from tests.channel.clients import PATIENCE
from tests.support.model_endpoint import answer, call, calls, chunk, event, joined, stream, text, usage

UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
WHERE = Where("http://model.test", "test-model", has_key=True)
FULL = stream(
    chunk(role="assistant", content=""),
    chunk(reasoning_content="Häm…"),
    text("Grüß "),
    text("dich 😀"),
    calls(call(0, "a", "clock", "")),
    calls(call(0, arguments='{"timezone":')),
    calls(call(0, arguments=' "UTC"}')),
    chunk("tool_calls"),
    usage(11, 7),
)


def read(pieces: Iterable[bytes], *tools: str) -> list[AgentOutput]:
    """What an agent makes of a body that arrives in these pieces."""
    events, reader = Events(1 << 20), AnswerReader(WHERE, ToolNames(tools))
    found = [data for piece in pieces for data in events.feed(piece)] + events.end()
    outputs = [output for data in found for output in reader.feed(data)]
    return [*outputs, reader.close()]


def read_chunks(*chunks: dict[str, Any]) -> list[AgentOutput]:
    return read(stream(*chunks))


def made_calls(outputs: Iterable[AgentOutput]) -> list[tuple[str, str]]:
    """The calls, as the turn's writer puts them together."""
    found: dict[int, list[str]] = {}
    for output in outputs:
        if isinstance(output, ToolCallDelta):
            known = found.setdefault(output.index, [output.name or "", ""])
            known[1] += output.arguments
    assert list(found) == list(range(len(found)))
    return [(name, arguments) for name, arguments in found.values()]


@pytest.mark.feature("A06", "A01")
async def test_a_streamed_answer_is_yielded_piece_by_piece() -> None:
    async with bench() as one:
        one.fake.reply(*FULL)
        step = await one.step()
    assert step.outputs == [
        Reasoning("Häm…"),
        Text("Grüß "),
        Text("dich 😀"),
        ToolCallDelta(0, "a", "clock"),
        ToolCallDelta(0, arguments='{"timezone":'),
        ToolCallDelta(0, arguments=' "UTC"}'),
        UsageReport(11, 7, "test-model"),
        Finish("tool_calls"),
    ]


def test_regression_10_a_body_may_be_cut_in_two_at_any_byte() -> None:
    body = joined(FULL)
    whole = read([body])
    assert len(whole) == 8
    for place in range(len(body) + 1):
        assert read([body[:place], body[place:]]) == whole, place
    assert read([body[place : place + 1] for place in range(len(body))]) == whole


@given(st.lists(st.integers(0, len(joined(FULL))), max_size=12))
def test_a_body_may_be_cut_into_any_pieces(places: list[int]) -> None:
    body, edges = joined(FULL), sorted(places)
    pieces = [body[start:end] for start, end in zip([0, *edges], [*edges, len(body)], strict=True)]
    assert read(pieces) == read([body])


async def test_pieces_of_one_byte_over_the_socket_are_the_same_answer() -> None:
    body = joined(answer("é", "!"))
    async with bench() as one:
        one.fake.reply(*(body[place : place + 1] for place in range(len(body))))
        assert (await one.step()).text == "é!"


def test_line_ends_comments_and_unknown_fields_are_as_in_any_event_stream() -> None:
    body = joined(FULL)
    assert read([body.replace(b"\n", b"\r\n")]) == read([body])
    assert read([b": keep-alive\n\n" + body.replace(b"data: ", b"event: x\nid: 7\ndata:")]) == read([body])


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_has_two_names(field: str) -> None:
    assert read_chunks(chunk(**{field: "hm"}), chunk("stop")) == [Reasoning("hm"), Finish("stop")]


def test_reasoning_under_both_names_is_said_once() -> None:
    assert read_chunks(chunk("stop", reasoning="hm", reasoning_content="hm"))[0:-1] == [Reasoning("hm")]


def test_content_may_come_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}, 7]
    assert read_chunks(chunk("stop", content=parts)) == [Reasoning("hm"), Text("so"), Finish("stop")]


def test_a_refusal_is_what_the_model_says() -> None:
    assert read_chunks(chunk("stop", refusal="I will not.")) == [Text("I will not."), Finish("stop")]


@pytest.mark.parametrize(
    ("said", "heard"),
    [("stop", "stop"), ("length", "length"), ("max_tokens", "length"), ("eos_token", "stop"), ("tool_calls", "stop")],
)
def test_why_it_ended(said: str, heard: str) -> None:
    assert read_chunks(text("x"), chunk(said))[-1] == Finish(heard)  # type: ignore[arg-type]


def test_other_answers_than_the_first_and_empty_lists_are_passed_over() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": None}]}
    assert read_chunks({"choices": []}, {"choices": None}, other, text("yes"), chunk("stop"))[0] == Text("yes")


def test_the_last_usage_counts_and_gaps_in_it_are_zero() -> None:
    outputs = read_chunks({**text("x"), "usage": {"prompt_tokens": 3}}, chunk("stop"), usage(3, 9))
    reports = [output for output in outputs if isinstance(output, UsageReport)]
    assert reports == [UsageReport(3, 0), UsageReport(3, 9)]


def test_an_end_without_done_is_an_end_if_the_model_said_why() -> None:
    assert read(stream(text("x"), chunk("stop"), done=False)) == [Text("x"), Finish("stop")]


def test_an_end_without_a_reason_is_an_end_if_it_is_said_to_be_one() -> None:
    assert read(stream(text("x"))) == [Text("x"), Finish("stop")]


def test_the_last_event_may_lack_its_blank_line() -> None:
    assert read([joined(stream(text("x"), chunk("stop"), done=False)).rstrip(b"\n")])[-1] == Finish("stop")


@pytest.mark.parametrize("cut", [b'data: {"choices": [{"del', b"data: [DO", b"dat", b"\xf0\x9f"])
def test_half_an_event_at_the_end_is_a_cut(cut: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        read([*stream(text("x"), done=False), cut])
    assert caught.value.code == "model_stream_cut"


@pytest.mark.feature("A06")
@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([calls(call(0, "a", "f", '{"x":')), calls(call(0, arguments="1}"))], id="as OpenAI"),
        pytest.param([calls(call(3, "a", "f", '{"x":')), calls(call(3, arguments="1}"))], id="any first index"),
        pytest.param([calls(call(None, "a", "f", '{"x":1}'))], id="no index"),
        pytest.param([calls(call(None, "a", "f", '{"x":')), calls(call(arguments="1}"))], id="no index, in pieces"),
        pytest.param([calls(call(0, "a", "f", '{"x":')), calls(call(0, "a", "f", "1}"))], id="name repeated"),
        pytest.param([calls(call(None, "a", "f", '{"x":')), calls(call(None, "a", "f", "1}"))], id="id repeated"),
        pytest.param([calls(call(0, "a", "f", '{"x":')), calls(call(0, "b", None, "1}"))], id="an id for each piece"),
        pytest.param([calls(call(0, "a", "f", {"x": 1}))], id="an object"),
        pytest.param([calls(call(0, "a", None, '{"x":')), calls(call(0, None, "f", "1}"))], id="name later"),
        pytest.param([calls(call(0, "a", "f", "")), calls(call(0, "", "", '{"x":1}'))], id="empty id and name"),
        pytest.param([calls({"index": "0", "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}})], id="text"),
        pytest.param([chunk(function_call={"name": "f", "arguments": '{"x":'}),
                      chunk(function_call={"arguments": "1}"})], id="function_call"),
    ],
)  # fmt: skip
def test_a_call_in_each_shape_that_is_about(chunks: list[dict[str, Any]]) -> None:
    outputs = read_chunks(*chunks, chunk("tool_calls"))
    assert [(name, msgspec.json.decode(arguments)) for name, arguments in made_calls(outputs)] == [("f", {"x": 1})]
    assert outputs[-1] == Finish("tool_calls")


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([calls(call(0, "a", "f", "{"), call(1, "b", "g", '{"y"')), calls(call(0, arguments="}")),
                      calls(call(1, arguments=":1}"))], id="interleaved"),
        pytest.param([calls(call(None, "a", "f", "{}"), call(None, "b", "g", '{"y":1}'))], id="no index"),
        pytest.param([calls(call(None, None, "f", "{}"), call(None, None, "g", '{"y":1}'))], id="nothing but names"),
        pytest.param([calls(call(None, None, "f", "{}")), calls(call(None, None, "g", '{"y":1}'))], id="one by one"),
        pytest.param([calls(call(0, "a", "f", "{}")), calls(call(0, "b", "g", '{"y":1}'))], id="index always 0"),
        pytest.param([calls(call(0, "a", "f", "{}"), call(0, "b", "g", '{"y"')), calls(call(0, arguments=":1}"))],
                     id="index always 0, in pieces"),
    ],
)  # fmt: skip
def test_two_calls_in_each_shape_that_is_about(chunks: list[dict[str, Any]]) -> None:
    outputs = read_chunks(*chunks, chunk("stop"))
    assert made_calls(outputs) == [("f", "{}"), ("g", '{"y":1}')]
    assert outputs[-1] == Finish("tool_calls")


def test_the_same_function_twice_is_two_calls() -> None:
    outputs = read_chunks(calls(call(None, None, "f", "{}"), call(None, None, "f", "{}")), chunk("stop"))
    assert made_calls(outputs) == [("f", "{}"), ("f", "{}")]


@pytest.mark.feature("A06")
def test_arguments_that_are_no_json_are_passed_on_as_they_are() -> None:
    assert made_calls(read_chunks(calls(call(0, "a", "f", "{nonsense")), chunk("tool_calls"))) == [("f", "{nonsense")]


def test_a_call_that_the_token_limit_cut_is_never_run() -> None:
    with pytest.raises(ModelError, match="raise max_tokens") as caught:
        read_chunks(calls(call(0, "a", "f", '{"x": "half')), chunk("length"))
    assert caught.value.code == "model_output_limit"
    assert read_chunks(calls(call(0, "a", "f", "{}")), chunk("length"))[-1] == Finish("length")


def test_names_that_models_refuse_are_translated_there_and_back() -> None:
    names = ["git.status", "git_status", "x" * 70]
    tools = ToolNames(names)
    theirs = [tools.theirs(name) for name in names]
    assert theirs == ["git_status_2", "git_status", "x" * 64]
    assert [tools.ours(name) for name in theirs] == names
    outputs = read([*stream(calls(call(0, "a", "git_status_2", "{}")), chunk("tool_calls"))], *names)
    assert made_calls(outputs) == [("git.status", "{}")]


async def test_an_endpoint_that_does_not_stream_is_read_too() -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call(None, "a", "f", "{}")]}
    body = {**usage(1, 2), "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    async with bench() as one:
        one.fake.reply(msgspec.json.encode(body), headers={"Content-Type": "application/json; charset=utf-8"})
        step = await one.step(tools=[ToolSpec(name="f", description="F", parameters={"type": "object"})])
    assert step.outputs == [
        Text("Hi"),
        ToolCallDelta(0, "a", "f", "{}"),
        UsageReport(1, 2, "test-model"),
        Finish("tool_calls"),
    ]


async def test_an_answer_read_to_its_end_leaves_its_connection_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_LINGER", PATIENCE)
    async with bench() as one:
        for _ in range(3):
            one.fake.reply(*answer("x"))
            await one.step()
        assert len(one.fake.connections) == 1


async def test_an_endpoint_that_keeps_a_finished_answer_open_breaks_nothing() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"), then="hang")
        assert (await one.step()).text == "x"
        one.fake.reply(*stream(text("y"), chunk("stop"), done=False), then="cut")
        assert (await one.step()).outputs == [Text("y"), Finish("stop")]


def test_counts_that_cannot_be_are_bounded() -> None:
    assert read_chunks(usage(-1, 10**30), chunk("stop"))[0] == UsageReport(0, 50_000_000)


def test_arguments_that_belong_to_no_function_fill_no_memory() -> None:
    endless = [calls(call(index, "a", None, "x" * 1000)) for index in range(2000)]
    with pytest.raises(ModelError, match="without a name"):
        read_chunks(*endless)


def test_an_invented_name_is_cut() -> None:
    assert made_calls(read_chunks(calls(call(0, "a", "f" * 1000, "{}")), chunk("stop"))) == [("f" * 256, "{}")]


def test_an_event_may_hold_what_only_a_comment_may() -> None:
    assert read([event(text("x")), b": \xff\n\n", b"data:\n\n", *stream(chunk("stop"))])[0] == Text("x")


# --- what nobody would send on purpose


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([r"\ud83d", r"\ude00!"], "😀!"),
        ([r"a\ud83d", "", r"\ude00b"], "a😀b"),
        ([r"a\ud83d", "b"], "a\ufffdb"),
        ([r"\ude00", "b"], "\ufffdb"),
        ([r"a\ud83d"], "a"),
        ([r"\ud83d\ud83d", r"\ude00"], "\ufffd😀"),
    ],
)
def test_an_emoji_that_was_cut_in_two_is_whole_again(pieces: list[str], whole: str) -> None:
    for shape in (
        '"content": "%s"',
        '"reasoning": "%s"',
        '"tool_calls": [{"index": 0, "function": {"arguments": "%s"}}]',
    ):
        body = b"".join(b'data: {"choices": [{"delta": {%s}}]}\n\n' % (shape % one).encode() for one in pieces)
        named = event(calls(call(0, "a", "f"))) if "tool" in shape else b""
        outputs = read([named, body, b"data: [DONE]\n\n"])
        texts = (one.arguments if isinstance(one, ToolCallDelta) else getattr(one, "text", "") for one in outputs)
        assert "".join(texts) == whole


@pytest.mark.parametrize("count", [[], "many", 3.5, {"prompt_tokens": "?"}, {"prompt_tokens": 3.5}])
def test_an_answer_is_none_the_worse_for_strange_counts(count: Any) -> None:
    assert read_chunks(text("x"), {**chunk("stop"), "usage": count}) == [Text("x"), Finish("stop")]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("{}"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "type", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these fields, or without some of them, or with something else in them, or something else."""
    some = st.fixed_dictionaries({}, optional={name: field | VALUES for name, field in fields.items()})
    return some | some | some | VALUES


FUNCTION = objects(name=st.text(max_size=4), arguments=st.text(max_size=4))
PIECES = st.lists(objects(index=st.integers(-1, 3), id=st.text(max_size=2), function=FUNCTION), max_size=3)
DELTA = objects(
    content=st.text(max_size=4), reasoning=VALUES, reasoning_content=VALUES, tool_calls=PIECES, refusal=VALUES
)
CHOICES = st.lists(objects(index=st.just(0), delta=DELTA, message=DELTA, finish_reason=st.just("stop")), max_size=2)
CHUNKS = objects(choices=CHOICES, usage=VALUES, error=VALUES, object=VALUES, message=VALUES, code=VALUES)


def is_told(pieces: Iterable[bytes]) -> bool:
    """Whether this is an answer that ends, or else an error that people can read."""
    try:
        outputs = read(pieces)
    except ModelError as error:
        return UNREADABLE.search(error.message) is None and len(error.message) < 1500
    return isinstance(outputs[-1], Finish) and all(name for name, _ in made_calls(outputs))


@pytest.mark.feature("A06")
@given(st.lists(CHUNKS, max_size=6), st.booleans())
def test_whatever_is_sent_is_an_answer_or_an_error_of_ours(sent: list[Any], done: bool) -> None:
    assert is_told(stream(*sent, done=done))


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"[DONE]", b"{", b"}"]), max_size=12)
)
def test_whatever_bytes_are_sent_are_an_answer_or_an_error_of_ours(pieces: list[bytes]) -> None:
    assert is_told(pieces)

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated, Any, cast

import pytest
from msgspec import Meta, Struct
from structlog.testing import capture_logs

from server.agents import bounded, threads
from server.agents.interface import ToolContext
from server.agents.tools import MAX_RESULT_BYTES, ServerTool, ToolError, tool
from tests.agents.support import tool_context


class Point(Struct):
    x: int
    y: int = 0


@tool(read_only=True)
def plot(
    label: Annotated[str, Meta(min_length=1, description="What to write.")],
    points: list[Point],
    context: ToolContext,
    size: Annotated[int, Meta(ge=1, le=9)] = 3,
) -> dict[str, Any]:
    """Draw points.

    The second paragraph is for the model too.
    """
    return {"label": label, "points": points, "size": size, "call": context.call_id}


async def refused(called: ServerTool, arguments: str = "{}") -> str:
    with pytest.raises(ToolError) as caught:
        await called.call(arguments, tool_context())
    assert str(caught.value) == caught.value.message
    return caught.value.message


def test_the_signature_is_the_schema_and_the_docstring_the_description() -> None:
    assert plot.spec.name == "plot"
    assert plot.spec.description == "Draw points.\n\nThe second paragraph is for the model too."
    assert (plot.spec.executor, plot.spec.read_only, plot.spec.idempotent) == ("server", True, True)
    assert plot.spec.parameters == {
        "type": "object",
        "properties": {
            "label": {"type": "string", "minLength": 1, "description": "What to write."},
            "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
            "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        },
        "required": ["label", "points"],
        "additionalProperties": False,
        "$defs": {
            "Point": {
                "title": "Point",
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
                "required": ["x"],
            }
        },
    }


async def test_arguments_are_decoded_and_the_result_is_a_json_value() -> None:
    value = await plot.call('{"label": "a", "points": [{"x": 1}]}', tool_context())
    assert value == {"label": "a", "points": [{"x": 1, "y": 0}], "size": 3, "call": "c1"}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("", "`label`"),
        ('{"points": []}', "`label`"),
        ('{"label": 1, "points": []}', "$.label"),
        ('{"label": "", "points": []}', "$.label"),
        ('{"label": "a", "points": [{"x": 1}, {"x": "1"}]}', "$.points[1].x"),
        ('{"label": "a", "points": [], "size": 10}', "$.size"),
        ('{"label": "a", "points": [], "colour": 1}', "`colour`"),
        ('{"label": "a", "points": [], "context": {}}', "`context`"),
        ("[]", "Expected `object`"),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(arguments: str, names: str) -> None:
    message = await refused(plot, arguments)
    assert message.startswith("invalid arguments for plot: ")
    assert names in message


@pytest.mark.parametrize("arguments", ["{", '{"label": \ud800}', "[" * 100_000, "nonsense", '{"label": "\\ud800"}'])
async def test_what_is_no_json_is_refused(arguments: str) -> None:
    assert "plot" in await refused(plot, arguments)


async def test_synchronous_functions_run_in_a_thread_and_others_in_the_loop() -> None:
    @tool
    def blocking() -> bool:
        """Say whether this is the loop's thread."""
        return threading.current_thread() is threading.main_thread()

    @tool
    async def direct() -> bool:
        """Say whether this is the loop's thread."""
        return threading.current_thread() is threading.main_thread()

    assert await blocking.call("{}", tool_context()) is False
    assert await direct.call("{}", tool_context()) is True


async def test_a_tool_that_takes_too_long_is_stopped() -> None:
    stopped = []

    @tool(timeout=0)
    async def stuck() -> None:
        """Never come back."""
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    assert await refused(stuck) == "stuck took longer than 0 s and was stopped"
    assert stopped == [True]


async def test_tools_that_hang_in_threads_hold_up_no_other() -> None:
    release = threading.Event()

    @tool
    def hangs() -> str:
        """Wait for the test."""
        release.wait(60)
        return "released"

    @tool(timeout=5)
    def answers() -> str:
        """Answer at once."""
        assert threading.current_thread().daemon, "Python waits at its end for threads that are not daemons"
        return "here"

    hanging = [asyncio.create_task(hangs.call("{}", tool_context())) for _ in range(40)]
    try:
        assert await answers.call("{}", tool_context()) == "here"
    finally:
        release.set()
    assert await asyncio.gather(*hanging) == ["released"] * 40


async def test_there_is_a_last_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    @tool
    def hangs() -> str:
        """Wait for the test."""
        release.wait(60)
        return "released"

    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    # Not those that other tests have left behind.
    monkeypatch.setattr(threads, "_threads", threads._Threads())
    hanging = asyncio.create_task(hangs.call("{}", tool_context()))
    await asyncio.sleep(0)
    assert await refused(hangs) == "hangs cannot run now: too many tools are running"
    release.set()
    assert await hanging == "released"
    assert await hangs.call("{}", tool_context()) == "released"


async def test_a_thread_that_takes_too_long_is_left_behind() -> None:
    release = threading.Event()

    @tool(timeout=0)
    def stuck() -> None:
        """Wait for the test."""
        release.wait()

    try:
        assert "took longer" in await refused(stuck)
    finally:
        release.set()


class Deaf:
    """A tool's function that swallows every cancellation until it is released."""

    def __init__(self) -> None:
        self.heard = 0
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self) -> str:
        self.started.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.heard += 1
        return "released"


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deaf]:
    monkeypatch.setattr(bounded, "LEAVE_PATIENCE", 0)
    function = Deaf()
    yield function
    function.release.set()


@pytest.mark.feature("A02")
async def test_a_tool_that_swallows_its_cancellation_is_left_behind(deaf: Deaf) -> None:
    @tool(timeout=0)
    async def stuck() -> str:
        """Wait for the test."""
        return await deaf()

    with capture_logs() as logs:
        assert await refused(stuck) == "stuck took longer than 0 s and was stopped"
    assert deaf.heard == 1
    assert [entry["tool"] for entry in logs if entry["event"] == "cancellation_ignored"] == ["stuck"]
    (left,) = bounded._left
    deaf.release.set()
    await left
    assert not bounded._left


async def test_cancelling_the_call_of_a_tool_that_swallows_it_ends_the_call(deaf: Deaf) -> None:
    @tool
    async def stuck() -> str:
        """Wait for the test."""
        return await deaf()

    task = asyncio.create_task(stuck.call("{}", tool_context()))
    await deaf.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (left,) = bounded._left
    deaf.release.set()
    await left


async def test_cancelling_the_call_leaves_the_thread_behind() -> None:
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @tool
    def stuck() -> None:
        """Wait for the test."""
        loop.call_soon_threadsafe(started.set)
        release.wait()

    task = asyncio.create_task(stuck.call("{}", tool_context()))
    await started.wait()
    task.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()


async def test_a_tool_that_returns_after_its_time_is_too_late() -> None:
    @tool(timeout=0)
    async def late() -> str:
        """Make up an answer when it is cancelled."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "here I am"
        return ""

    assert "took longer" in await refused(late)


async def test_cancelling_the_call_cancels_the_function() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    @tool
    async def stuck() -> None:
        """Never come back."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    task = asyncio.create_task(stuck.call("{}", tool_context()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()


async def test_an_unexpected_exception_is_logged_whole_and_told_by_its_name_only() -> None:
    @tool
    def broken() -> None:
        """Fail."""
        raise RuntimeError("password is hunter2")

    with capture_logs() as logs:
        assert await refused(broken) == "broken failed (RuntimeError)"
    assert [(entry["event"], entry["tool"], entry["log_level"]) for entry in logs] == [
        ("tool_failed", "broken", "error")
    ]


async def test_a_time_out_of_the_tools_own_is_a_failure_like_any_other() -> None:
    @tool
    async def remote() -> None:
        """Fail as a socket does."""
        raise TimeoutError

    with capture_logs():
        assert await refused(remote) == "remote failed (TimeoutError)"


async def test_a_tool_error_reaches_the_model_as_it_is() -> None:
    @tool
    def picky() -> None:
        """Refuse."""
        raise ToolError("there is no such city")

    assert await refused(picky) == "there is no such city"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "is no JSON value"),
        ({(1, 2): 3}, "is no JSON value"),
        ("\ud800", "is no JSON value"),
        ("a\0b", "NUL"),
        (["\\\0"], "NUL"),
        ("x" * MAX_RESULT_BYTES, f"more than the {MAX_RESULT_BYTES} allowed"),
    ],
)
async def test_results_that_cannot_be_kept_are_refused(value: object, complaint: str) -> None:
    @tool
    def give() -> object:
        """Return what the test wants."""
        return value

    assert complaint in await refused(give)


@pytest.mark.parametrize("value", ["\\u0000", "x" * (MAX_RESULT_BYTES - 2), None, [1, 2.5, {"a": None}], "é😀"])
async def test_results_that_can_be_kept_come_back_unchanged(value: object) -> None:
    @tool(name="give-it")
    async def give() -> object:
        """Return what the test wants."""
        return value

    assert give.spec.name == "give-it"
    assert await give.call("{}", tool_context()) == value


def test_signatures_without_a_json_counterpart_are_refused_when_they_are_declared() -> None:
    def no_annotation(a) -> None:  # type: ignore[no-untyped-def]
        """Doc."""

    def starred(*a: int) -> None:
        """Doc."""

    def positional(a: int, /) -> None:
        """Doc."""

    def no_docstring(a: int) -> None: ...

    for function, error in ((no_annotation, "'a' needs"), (starred, "by name"), (positional, "by name")):
        with pytest.raises(TypeError, match=error):
            tool(cast("Any", function))
    with pytest.raises(ValueError, match="docstring"):
        tool(no_docstring)
    with pytest.raises(ValueError, match="tool name"):
        tool(name="no spaces")(plot._function)

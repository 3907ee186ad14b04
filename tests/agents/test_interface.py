from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import pytest

from server.agents.interface import (
    Agent,
    AgentContext,
    AgentDefinition,
    AgentError,
    AgentYield,
    Finish,
    Text,
    agent,
)
from server.agents.tools import tool
from tests.agents.support import context, run


@agent(type="parrot", tools=["read_file"])
async def parrot(where: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Repeats you."""
    yield where.history[-1].content
    yield Text("!")
    yield Finish("stop")


@pytest.mark.feature("A06")
async def test_one_async_generator_function_is_an_agent() -> None:
    assert isinstance(parrot, Agent)
    assert parrot.definition == AgentDefinition(
        type="parrot", name="parrot", description="Repeats you.", allowed_tools=("read_file",)
    )
    step = await run(parrot, context(parrot, "hello"))
    assert step.outputs == [Text("hello"), Text("!"), Finish("stop")]


async def test_tools_of_its_own_are_allowed_and_carried_along() -> None:
    @tool
    def dice() -> int:
        """Throw a die."""
        return 4

    @agent(type="gambler", tools=["read_file", dice], prompt="Play.", rerun=False)
    async def gambler(where: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "x"

    assert gambler.tools == (dice,)
    assert gambler.definition.allowed_tools == ("read_file", "dice")
    assert gambler.definition.prompt == "Play."
    assert not gambler.definition.rerun


def test_a_function_that_does_not_yield_is_refused_by_name() -> None:
    async def silent(where: AgentContext) -> None:
        return None

    with pytest.raises(TypeError, match="async def silent"):
        agent(type="silent")(cast("Any", silent))


async def test_an_unknown_output_ends_the_step_with_a_named_error() -> None:
    @agent(type="odd")
    async def odd(where: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield cast("Any", 42)

    with pytest.raises(AgentError, match="'odd' yielded int") as caught:
        await run(odd, context(odd, "hi"))
    assert caught.value.code == "invalid_output"
    assert not caught.value.retryable


async def test_closing_the_iterator_closes_the_function() -> None:
    closed = []

    @agent(type="holder")
    async def holder(where: AgentContext) -> AsyncGenerator[AgentYield, None]:
        try:
            yield "one"
            yield "two"
        finally:
            closed.append(True)

    async with aclosing(cast("Any", holder.run(context(holder, "hi")))) as stream:
        assert await anext(stream) == Text("one")
    assert closed == [True]


def test_the_agent_id_hangs_on_the_type_alone() -> None:
    one = AgentDefinition(type="coder", name="Coder")
    other = AgentDefinition(type="coder", name="Programmer", prompt="x")
    assert one.agent_id == other.agent_id
    assert one.agent_id.version == 5
    assert one.agent_id != AgentDefinition(type="debug", name="Coder").agent_id


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 65, "12345678-1234-5678-1234-567812345678", "*"])
def test_types_that_routes_could_not_tell_apart_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="agent type"):
        AgentDefinition(type=name, name="x")


def test_regression_22_tools_are_allowed_by_their_whole_name() -> None:
    definition = AgentDefinition(type="x", name="x", allowed_tools=("read_file",))
    assert definition.allows_tool("read_file")
    assert not definition.allows_tool("read_file_x")
    assert not definition.allows_tool("read")
    assert AgentDefinition(type="x", name="x", allowed_tools=("*",)).allows_tool("anything")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("plan.md", True),
        ("docs/deep/plan.md", True),
        ("./plan.md", True),
        ("docs\\plan.md", True),
        ("/abs/plan.md", False),
        ("C:plan.md", False),
        ("C:\\plan.md", False),
        ("\\\\host\\share\\plan.md", False),
        ("~/plan.md", False),
        ("x.py:plan.md", False),
        ("x.py\0.md", False),
        ("x.py\n.md", False),
        ("./plan.md/../x.py", False),
        ("docs\\..\\plan.md", False),
        ("plan.md.", False),
        ("plan.md ", False),
        ("plan.md/.", False),
        ("plan.py", False),
        ("plan.md.py", False),
        ("plan.md/code.py", False),
        ("plan.md/../code.py", False),
        ("../plan.md", False),
        ("plan.MD", False),
        ("docs/", False),
        ("", False),
    ],
)
def test_file_patterns_limit_what_may_be_written(path: str, allowed: bool) -> None:
    definition = AgentDefinition(type="x", name="x", file_patterns=("*.md",))
    assert definition.allows_file(path) is allowed
    assert definition.has_file_restrictions


def test_a_pattern_with_a_slash_is_meant_from_the_workspace() -> None:
    definition = AgentDefinition(type="x", name="x", file_patterns=("docs/*.md",))
    assert definition.allows_file("docs/a.md")
    assert definition.allows_file("./docs/a.md")
    assert not definition.allows_file("src/docs/a.md")
    assert AgentDefinition(type="x", name="x").allows_file("anything")

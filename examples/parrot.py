"""An agent of one's own, and a tool that the server runs for agents; parrot.toml puts both into a server."""

from collections.abc import AsyncGenerator

from parley import AgentContext, agent, tool


@tool(read_only=True)
def backwards(text: str) -> str:
    """Turn a text around, so that its last character comes first."""
    return text[::-1]


@agent(type="parrot", name="Parrot", tools=[backwards])
async def parrot(context: AgentContext) -> AsyncGenerator[str, None]:
    """Repeats what you say, a word at a time."""
    # Nothing is kept between calls: if this process dies here, another one calls again with the same context.
    for word in context.history[-1].content.split():
        await context.sleep(0.05)
        yield word + " "

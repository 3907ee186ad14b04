"""Parley's public face: talk to a server, write agents and tools for one.

    from parley import connect, events   # a client of a session, and the types of what it hears
    from parley import agent, tool       # an agent is one async generator function, a tool is one function

Everything else in the distribution may change between versions.
"""

from __future__ import annotations

from protocol import events
from protocol.client import AgentFailed, Client, Server, SyncClient, connect, connect_sync, create_session
from protocol.errors import ParleyError
from server.agents.interface import Agent, AgentContext, AgentError, AgentYield, Reasoning, ToolCallDelta, agent
from server.agents.tools import ToolError, tool
from server.version import VERSION

__all__ = [
    "Agent",
    "AgentContext",
    "AgentError",
    "AgentFailed",
    "AgentYield",
    "Client",
    "ParleyError",
    "Reasoning",
    "Server",
    "SyncClient",
    "ToolCallDelta",
    "ToolError",
    "__version__",
    "agent",
    "connect",
    "connect_sync",
    "create_session",
    "events",
    "tool",
]

__version__ = VERSION

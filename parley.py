"""Parley's public face: talk to a server, write agents and tools for one.

    from parley import connect, events   # a client of a session, and the types of what it hears
    from parley import agent, tool       # an agent is one async generator function, a tool is one function
    from parley import client_tool       # a tool that a client runs, not the server

Everything else in the distribution may change between versions.
"""

from __future__ import annotations

from protocol import events
from protocol.client import (
    AgentFailed,
    CallContext,
    Client,
    ClientTool,
    Server,
    SyncClient,
    client_tool,
    connect,
    connect_sync,
    create_session,
)
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
    "CallContext",
    "Client",
    "ClientTool",
    "ParleyError",
    "Reasoning",
    "Server",
    "SyncClient",
    "ToolCallDelta",
    "ToolError",
    "__version__",
    "agent",
    "client_tool",
    "connect",
    "connect_sync",
    "create_session",
    "events",
    "tool",
]

__version__ = VERSION

"""Parley's public face: talk to a server, write agents and tools for one.

    from parley import connect           # a client of a session
    from parley import agent, tool       # an agent is one async generator function, a tool is one function

Everything else in the distribution may change between versions.
"""

from __future__ import annotations

from protocol.client import Client, connect, create_session
from protocol.errors import ParleyError
from server.agents.interface import Agent, AgentContext, agent
from server.agents.tools import tool
from server.version import VERSION

__all__ = [
    "Agent",
    "AgentContext",
    "Client",
    "ParleyError",
    "__version__",
    "agent",
    "connect",
    "create_session",
    "tool",
]

__version__ = VERSION

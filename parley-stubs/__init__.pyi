# The types of `parley`, for type checkers: a single module cannot carry the py.typed mark itself (PEP 561).
# The imports are parley.py's own; tests/packaging compares the two.

from protocol import events as events
from protocol.client import AgentFailed as AgentFailed
from protocol.client import CallContext as CallContext
from protocol.client import Client as Client
from protocol.client import ClientTool as ClientTool
from protocol.client import Server as Server
from protocol.client import SyncClient as SyncClient
from protocol.client import client_tool as client_tool
from protocol.client import connect as connect
from protocol.client import connect_sync as connect_sync
from protocol.client import create_session as create_session
from protocol.errors import ParleyError as ParleyError
from server.agents.interface import Agent as Agent
from server.agents.interface import AgentContext as AgentContext
from server.agents.interface import AgentError as AgentError
from server.agents.interface import AgentYield as AgentYield
from server.agents.interface import Reasoning as Reasoning
from server.agents.interface import ToolCallDelta as ToolCallDelta
from server.agents.interface import agent as agent
from server.agents.tools import ToolError as ToolError
from server.agents.tools import tool as tool

__version__: str

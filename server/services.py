"""What the parts of the server share: made once in `server.app`, found in the application under `SERVICES`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final

from aiohttp import web

from server.agents.directory import AgentDirectory
from server.agents.mcp.source import McpServers
from server.agents.model.endpoint import Endpoint
from server.agents.registry import Registry
from server.auth.access import Access
from server.auth.credentials import Credentials
from server.auth.guests import Guests
from server.bus import Bus
from server.channel.commands import Commands
from server.channel.decoding import Decoding
from server.channel.hub import Hub
from server.channel.limits import Limits
from server.channel.presence import Presence
from server.clock import Clock
from server.config import Config
from server.store import Store
from server.turns.forking import Forking
from server.turns.pricing import Prices
from server.turns.service import TurnService
from server.turns.spaces import Spaces
from storage.approvals import Approvals, Rules
from storage.audit import Audit
from storage.calls import Calls
from storage.log import EventLog
from storage.members import Members
from storage.messages import Messages
from storage.metrics import Metrics
from storage.pool import Database
from storage.projects import Projects
from storage.sessions import Sessions
from storage.switches import Switches

__all__ = ["SERVICES", "Phase", "Services"]


class Phase(Enum):
    """Where the server is in its life; `GET /ready` says so. It is ready in `SERVING` alone."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass
class Services:
    """One object of each kind. Nothing in here starts or stops another; `server.lifecycle` does."""

    config: Config
    clock: Clock
    #: When this process's services were made.
    started_at: datetime
    store: Store
    db: Database
    sessions: Sessions
    log: EventLog
    messages: Messages
    hub: Hub
    bus: Bus
    presence: Presence
    turns: TurnService
    commands: Commands
    registry: Registry
    mcp: McpServers
    access: Access
    credentials: Credentials
    members: Members
    guests: Guests
    projects: Projects
    directory: AgentDirectory
    spaces: Spaces
    forking: Forking
    switches: Switches
    metrics: Metrics
    audit: Audit
    prices: Prices
    approvals: Approvals
    rules: Rules
    calls: Calls
    #: Where the model is asked, if one is configured.
    endpoint: Endpoint | None = None
    phase: Phase = Phase.STARTING
    #: What bounds commands, and what reads them, by whatever transport they come.
    limits: Limits = field(default_factory=Limits)
    decoding: Decoding = field(default_factory=Decoding)


SERVICES: Final = web.AppKey("services", Services)

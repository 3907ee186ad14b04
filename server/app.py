"""Where everything is wired, and nowhere else.

    build       one object of each kind, nothing started
    create_app  the aiohttp application; its startup and cleanup start and stop the services

`server.run` puts the application behind a listener.

Order of starting: PostgreSQL, migrations, pool, hub, turns, bus, presence, listener. Order of stopping: listener,
streams, requests, presence, turns, connections to the model, hub, bus, pool, PostgreSQL.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from aiohttp import web

from protocol.errors import ErrorCode
from server.agents.directory import AgentDirectory
from server.agents.loading import AgentLoadError
from server.agents.mcp.source import McpServers
from server.agents.model.agent import ModelAgent
from server.agents.model.endpoint import Endpoint
from server.agents.offline import OfflineAgent
from server.agents.registry import AgentFactory, Registry
from server.auth import Access, Credentials, Gatekeeper, Logins, Tickets, Tokens, authenticate
from server.auth.guests import Guests
from server.auth.refresh import Refresher
from server.auth.routes import add_routes as add_auth_routes
from server.bus import Bus, LocalBus
from server.bus.postgres import PostgresBus
from server.channel.commands import Commands
from server.channel.hub import Hub
from server.channel.presence import Presence
from server.channel.reminding import OpenWork
from server.channel.routes import add_routes as add_channel_routes
from server.clock import Clock, SystemClock
from server.compat import add_routes as add_compat_routes
from server.config import Config, ConfigError
from server.lifecycle import Lifecycle
from server.rest import add_routes as add_rest_routes
from server.rest.middleware import harden, insist, requests
from server.services import SERVICES, Services
from server.store import Store
from server.turns.engine import Engine
from server.turns.forking import Forking
from server.turns.policy import Policy
from server.turns.pricing import Prices
from server.turns.service import TurnService
from server.turns.spaces import Spaces
from server.turns.terms import Terms
from server.version import VERSION
from server.web.routes import add_routes as add_web_routes
from storage.approvals import Approvals, Rules
from storage.audit import Audit
from storage.calls import Calls
from storage.forks import Forks
from storage.log import EventLog
from storage.members import Members
from storage.messages import Messages
from storage.metrics import Metrics
from storage.pool import Database
from storage.presence import PresenceTable
from storage.projects import Projects
from storage.sessions import Sessions
from storage.switches import Switches
from storage.tickets import Logins as LoginStore
from storage.tickets import Tickets as TicketStore

__all__ = ["LIFECYCLE", "build", "create_app"]

LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)

#: What clients are told to wait before they come back after a shutdown, in seconds; the hub spreads them out.
_COME_BACK_AFTER: Final = 1.0


async def build(config: Config, clock: Clock | None = None, *, registry: Registry | None = None) -> Services:
    """Make the services. Raises ConfigError when the agents that the configuration names cannot be had.

    `registry` takes the place of the one that the configuration describes.
    """
    clock = clock or SystemClock()
    endpoint = Endpoint(config.model) if config.model.model is not None else None
    model = partial(ModelAgent, endpoint=endpoint) if endpoint is not None else None
    mcp = McpServers(config.mcp, config.base, clock)
    try:
        registry = registry or Registry.build(config.agents, base=config.base, model=model, sources=[mcp])
    except (AgentLoadError, ValueError) as error:
        raise ConfigError(f"agents: {error}") from error
    db = Database(max_size=config.database.pool_size)
    sessions, log = Sessions(db), EventLog(db)
    projects, spaces = Projects(db), Spaces(config.limits, clock)
    offline: AgentFactory = partial(OfflineAgent, config=config.agents.offline)
    run = offline if model is None else model
    directory = AgentDirectory(registry, projects, run)
    hub = Hub(log, sessions, clock, config.channel, version=VERSION)
    prices = Prices(config.prices)
    terms = Terms(
        policy=Policy(config.policies, config.approvals),
        prices=prices,
        tools=config.tools,
        approvals=config.approvals,
        spaces=spaces,
        agents=directory.agent,
    )
    engine = Engine(db, registry, hub, clock, config.turns, terms)
    turns = TurnService(db, engine)
    store = Store(config.database)
    bus = _bus(config, store, engine, clock)
    hub.connect(bus, OpenWork(Approvals(db), Calls(db)))
    presence = Presence(
        PresenceTable(db, engine.worker_id, config.tools.grace),
        bus,
        clock,
        tell=hub.transient,
        refuse=hub.refuse,
        max_tools=config.tools.max_registered,
    )
    presence.watching.watcher = turns
    terms.executors, terms.stir = presence, bus.stir
    members, credentials = Members(db), _credentials(config, db, clock)
    return Services(
        config=config,
        clock=clock,
        started_at=clock.now(),
        store=store,
        db=db,
        sessions=sessions,
        log=log,
        messages=Messages(db),
        hub=hub,
        bus=bus,
        presence=presence,
        turns=turns,
        commands=Commands(turns, presence, Refresher(credentials.verifier, hub, clock)),
        registry=registry,
        mcp=mcp,
        access=Access(sessions, members),
        credentials=credentials,
        members=members,
        guests=Guests(members, hub, clock, config.channel.poll_interval),
        projects=projects,
        directory=directory,
        spaces=spaces,
        forking=Forking(sessions, Forks(db), directory, config.limits, clock),
        switches=Switches(db),
        metrics=Metrics(db),
        audit=Audit(db),
        prices=prices,
        approvals=Approvals(db),
        rules=Rules(db),
        calls=Calls(db),
        endpoint=endpoint,
    )


def _bus(config: Config, store: Store, engine: Engine, clock: Clock) -> Bus:
    if config.bus.kind == "none":
        return LocalBus()
    bus = PostgresBus(lambda: store.address, engine.worker_id, clock, config.bus)
    bus.on_stir = engine.stirred
    return bus


def _credentials(config: Config, db: Database, clock: Clock) -> Credentials:
    tokens = Tokens(config.auth.tokens)
    logins = Logins(LoginStore(db), tokens, clock, config.auth.login_lifetime)
    return Credentials(tokens or None, Tickets(TicketStore(db), clock), logins, clock)


def create_app(services: Services) -> web.Application:
    """The application: routes, the two middlewares, and the services' life bound to its own."""
    gatekeeper = Gatekeeper(services.config.server)
    app = web.Application(
        middlewares=[requests, authenticate(gatekeeper, services.credentials)],
        client_max_size=services.config.channel.max_command_bytes,
    )
    lifecycle = Lifecycle(services)
    app[SERVICES] = services
    app[LIFECYCLE] = lifecycle
    app.on_response_prepare.append(harden)
    app.on_response_prepare.append(gatekeeper.mark)
    if services.config.tls.enabled and services.config.tls.hsts_max_age:
        app.on_response_prepare.append(insist(services.config.tls.hsts_max_age))
    add_channel_routes(app)
    add_auth_routes(app)
    add_rest_routes(app)
    add_compat_routes(app)
    add_web_routes(app)

    async def start(_app: web.Application) -> None:
        await lifecycle.start()

    async def drain(_app: web.Application) -> None:
        await lifecycle.drain(ErrorCode.SHUTDOWN, retry_after=_COME_BACK_AFTER)

    async def stop(_app: web.Application) -> None:
        await lifecycle.stop()

    app.on_startup.append(start)
    app.on_shutdown.append(drain)
    app.on_cleanup.append(stop)
    return app

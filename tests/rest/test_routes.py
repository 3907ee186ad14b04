"""Every route has one handler and can be reached; every command has one service method, and it is there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request

from protocol.commands import (
    COMMANDS,
    Cancel,
    Command,
    HitlDecision,
    Ping,
    QueueUpdate,
    RefreshToken,
    RegisterTools,
    SwitchAgent,
    ToolProgress,
    ToolResult,
    UserMessage,
)
from protocol.events import Ack
from server import rest
from server.app import create_app
from server.channel.commands import Commands
from server.turns.service import Origin
from storage.sessions import Session
from tests.rest.scene import AS_ADA, shared_office
from tests.support.clock import ManualClock
from tests.support.server import MakeServer, RunningServer

_NOW = ManualClock().now()
_SESSION = Session(
    session_id=UUID(int=1),
    owner="me",
    alias=None,
    epoch="e",
    seq=0,
    title=None,
    description=None,
    current_agent="clerk",
    active_turn=None,
    queued=0,
    message_count=0,
    created_at=_NOW,
    last_activity=_NOW,
    is_active=True,
)

#: One command of each type, and the service's method that carries it out, if it needs one.
_CARRIED_OUT: list[tuple[Command, str | None]] = [
    (UserMessage(id="1", content="x"), "user_message"),
    (ToolResult(id="2", call_id="c", result=1), "tool_result"),
    (SwitchAgent(id="3", agent_type="a"), "switch_agent"),
    (HitlDecision(id="4", call_id="c", decision="approve"), "hitl_decision"),
    (Cancel(id="5"), "cancel"),
    (QueueUpdate(id="6", remove=UUID(int=2)), "queue_update"),
    (RegisterTools(id="7", tools=[]), "register"),
    (ToolProgress(id="8", call_id="c"), "tool_progress"),
    (RefreshToken(id="9", token="t"), "refresh"),
    (Ping(id="10"), None),
]


class Recorder:
    """A service that has every method, and notes which are called."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def method(*_arguments: Any) -> Ack:
            self.called.append(name)
            return Ack(id="x", status="accepted")

        return method


@pytest.mark.feature("S28")
async def test_regression_04_each_command_has_one_service_method() -> None:
    assert {type(command) for command, _ in _CARRIED_OUT} == set(COMMANDS.values())
    for command, method in _CARRIED_OUT:
        services = Recorder()
        commands = Commands(services, services, services)
        await commands.handle(_SESSION, command, Origin("me", "client", "test"))
        assert services.called == ([] if method is None else [method])


@pytest.mark.feature("S28")
async def test_regression_04_each_service_method_is_there(server: RunningServer) -> None:
    services = server.services
    for command, method in _CARRIED_OUT:
        homes = [
            home
            for home in (services.turns, services.presence, services.commands._refresher)
            if method is not None and inspect.iscoroutinefunction(getattr(home, method, None))
        ]
        assert len(homes) == (method is not None), command


def routes(app: web.Application) -> list[tuple[str, str, web.AbstractRoute]]:
    """Method, path and route of each, without the HEAD that goes with a GET."""
    return [
        (route.method, route.resource.canonical, route)
        for route in app.router.routes()
        if route.resource is not None and route.method != hdrs.METH_HEAD
    ]


def example(path: str) -> str:
    """A path of this form, with names in the place of parameters that nothing has."""
    return re.sub(r"\{(\w+)[^}]*\}", lambda match: str(uuid4()), path)


@pytest.mark.feature("S28")
async def test_regression_21_no_route_is_there_twice_or_in_anothers_shadow(server: RunningServer) -> None:
    app = create_app(server.services)
    found = routes(app)
    assert len(found) > 60
    forms = Counter((method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path, _ in found)
    assert [form for form, count in forms.items() if count > 1] == []
    for method, path, route in found:
        match = await app.router.resolve(make_mocked_request(method, example(path)))
        assert match.route is route, f"{method} {path} goes to {match.route}"


@pytest.mark.feature("S28", "S37")
async def test_regression_04_each_route_is_answered_by_its_handler(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    for method, path, _ in routes(create_app(server.services)):
        body: dict[str, Any] = {} if method in {hdrs.METH_GET, hdrs.METH_DELETE} else {"json": {}}
        for user in (dict[str, Any](), AS_ADA):
            async with server.client.request(method, example(path), allow_redirects=False, **user, **body) as response:
                assert response.status < 500, f"{method} {path}"
                assert response.status != 405, f"{method} {path}"
                if response.content_type == "application/problem+json":
                    problem = await response.json()
                    assert problem["detail"] != "there is nothing at this address", f"{method} {path}"


def test_no_module_of_routes_is_left_out() -> None:
    """Each module of the folder that has routes is added by the folder's `add_routes`."""
    source = inspect.getsource(rest.add_routes)
    for module in pkgutil.iter_modules(rest.__path__):
        if hasattr(importlib.import_module(f"server.rest.{module.name}"), "ROUTES"):
            assert f"{module.name}.add_routes(app)" in source, module.name

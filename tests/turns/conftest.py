"""Workshops for turns, on a database of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from server.agents.interface import FunctionAgent
from server.turns.policy import Policy
from server.turns.settings import TurnSettings
from storage.pool import Database
from tests.turns.support import ALLOWED, Workshop, registry_of

Make = Callable[..., Awaitable[Workshop]]


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Make]:
    """Start workshops on the test's database; several are several processes."""
    async with AsyncExitStack() as stack:

        async def start(
            *agents: FunctionAgent, begin: bool = True, policy: Policy = ALLOWED, **settings: Any
        ) -> Workshop:
            workshop = Workshop(database, registry_of(*agents), TurnSettings(**settings), policy)
            if begin:
                await workshop.service.start()
            stack.push_async_callback(workshop.service.stop)
            return workshop

        yield start

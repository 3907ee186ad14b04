"""Who runs the tools of clients: what the session's clients offer, as far as turns need to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from protocol.commands import ToolDescription
from server.agents.interface import ToolSpec

__all__ = ["Executors", "NoExecutors", "Offer", "Offers"]


class Offer(Protocol):
    """A client that is on the session, and the tools that it registered."""

    @property
    def client_id(self) -> str:
        """Which client."""

    @property
    def tools(self) -> Sequence[ToolDescription]:
        """What it can run."""


class Executors(Protocol):
    """The clients of all sessions, on whatever process."""

    async def offers(self, session_id: UUID) -> Sequence[Offer]:
        """Who offers tools on a session, the latest registration first."""
        ...


class NoExecutors:
    """Nobody is there."""

    async def offers(self, session_id: UUID) -> Sequence[Offer]:
        """No one."""
        del session_id
        return ()


class Offers:
    """What the clients of a session offer at this moment."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self._offers = offers

    def executor(self, name: str) -> str | None:
        """Who runs a tool: of several that offer it, the one that registered last."""
        return next((offer.client_id for offer in self._offers if self._has(offer, name)), None)

    def offers(self, client_id: str, name: str) -> bool:
        """Whether this client is here and offers the tool."""
        return any(offer.client_id == client_id and self._has(offer, name) for offer in self._offers)

    def specs(self) -> tuple[ToolSpec, ...]:
        """All tools, each as the one who would run it describes it."""
        specs: dict[str, ToolSpec] = {}
        for offer in self._offers:
            for tool in offer.tools:
                specs.setdefault(tool.name, _spec(tool))
        return tuple(specs.values())

    @staticmethod
    def _has(offer: Offer, name: str) -> bool:
        return any(tool.name == name for tool in offer.tools)


def _spec(tool: ToolDescription) -> ToolSpec:
    return ToolSpec(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        executor="client",
        read_only=tool.read_only,
        idempotent=tool.idempotent or tool.read_only,
        independent=tool.independent,
    )

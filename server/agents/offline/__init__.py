"""The agent that needs no key, no network and no weights: it makes every feature of the server triable."""

from server.agents.offline.agent import OFFLINE, OfflineAgent

__all__ = ["OFFLINE", "OfflineAgent"]

"""What the parts of the hub share."""

from __future__ import annotations

from typing import NamedTuple

from server.channel.settings import ChannelSettings
from server.channel.stats import Counters
from server.channel.tasks import Tasks
from server.clock import Clock

__all__ = ["Context"]


class Context(NamedTuple):
    """One of each, for one hub."""

    clock: Clock
    settings: ChannelSettings
    counters: Counters
    tasks: Tasks

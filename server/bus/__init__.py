"""What the processes of one database tell each other: hints, and what is true only now."""

from __future__ import annotations

from server.bus.interface import Bus, BusState, BusStats, Ear
from server.bus.local import LocalBus

__all__ = ["Bus", "BusState", "BusStats", "Ear", "LocalBus"]

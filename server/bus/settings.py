"""The `[bus]` section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["BusSettings"]

Seconds = Annotated[float, Meta(gt=0, le=3600)]


class BusSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the processes on one database tell each other what happened. Times are in seconds."""

    #: `postgres` (LISTEN and NOTIFY, on a connection of its own) or `none`: then others' events are found by the poll,
    #: and texts that another process writes are seen when they are complete.
    kind: Literal["postgres", "none"] = "postgres"
    #: How long pieces of messages being written are collected before they go to other processes.
    rollup: Seconds = 0.04
    #: How often it is looked for other processes; a new one also says so itself.
    look_interval: Seconds = 3.0
    #: How long a process that wants to hear a session is told what is written there before it has to say so again.
    interest: Seconds = 30.0

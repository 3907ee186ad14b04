"""The `[limits]` section of the configuration: what one user may have and do, so that others have their share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

__all__ = ["LimitSettings"]

Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


class LimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one user may have, and do at once. Others' use does not count."""

    #: Turns that run at once in each process; more wait until one has ended, the oldest first.
    turns: Count = 250
    #: Tools that this server runs at once for a user in each process; more calls wait.
    tools: Count = 64
    #: Sessions that are not deleted.
    sessions: Count = 10_000
    #: Projects that are not deleted.
    projects: Count = 1_000
    #: Agents of one project.
    agents: Count = 100
    #: Models that agents of projects may name beside those that this file names; `*` stands for all.
    models: tuple[str, ...] = ()
    #: Messages that a session may have to be forked, retried or edited.
    fork_messages: Count = 10_000
    #: After how many seconds without any work what is counted of a user is forgotten.
    idle: Annotated[float, Meta(ge=0, le=86_400)] = 300.0

"""One command, whatever transport it came over: bounded in time, and with no other failure than a ParleyError."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from protocol.commands import Command
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack
from server.auth.grants import Grant
from server.services import Services
from server.turns.service import Origin
from storage.sessions import Session

__all__ = ["carry_out"]

_log: Final = structlog.stdlib.get_logger("server.channel")

#: What a client waits before it sends a command again whose outcome it was not told, in seconds.
_RETRY_AFTER: Final = 1.0


async def carry_out(
    services: Services, session: Session, command: Command, origin: Origin, *, guest: Grant | None = None
) -> Ack:
    """Carry out a command within `command_timeout`. The role of a `guest`, who has been here for a while, is asked for.

    Raises ParleyError with the command's id. UNAVAILABLE may come although the command took effect; sending it again
    under its id is right in both cases.
    """
    counters, settings = services.hub.counters, services.hub.settings
    counters.commands += 1
    try:
        with services.limits.within(settings.command_timeout):
            if guest is not None:
                role = await services.access.role_now(guest, session.session_id)
                origin = msgspec.structs.replace(origin, role=role)
            return await services.commands.handle(session, command, origin)
    except TimeoutError:
        counters.command_timeouts += 1
        raise ParleyError(
            ErrorCode.UNAVAILABLE,
            "there was no answer in time; send the command again with the same id",
            retry_after=_RETRY_AFTER,
            id=command.id,
        ) from None
    except ParleyError as error:
        error.id = command.id if error.id is None else error.id
        raise
    except Exception as error:
        _log.exception("a command failed", command=type(command).__name__, session_id=str(session.session_id))
        raise ParleyError(ErrorCode.INTERNAL, "something went wrong here; the log has it", id=command.id) from error

"""The tools that a client registers, looked at before anybody is told of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from protocol.commands import ToolDescription
from protocol.errors import ErrorCode, ParleyError

__all__ = ["MAX_BYTES", "Checker"]

MAX_BYTES: Final = 262_144
"""What the tools of one client take as JSON."""

#: Bytes of schemas that are looked at at once; more would hold up everybody else, and are looked at in a thread.
_AT_ONCE: Final = 8_192
#: Schemas that were found to be good: clients that come back bring the same ones. Only their hashes are kept.
_REMEMBERED: Final = 4_096


class Checker:
    """Looks at what clients register, and remembers which schemas are good."""

    def __init__(self, most: int) -> None:
        """`most` tools are taken from one client."""
        self._most = most
        self._good: OrderedDict[bytes, None] = OrderedDict()

    async def check(self, tools: Sequence[ToolDescription]) -> bytes:
        """The tools as JSON.

        Raises ParleyError: INVALID for too many, or a schema that arguments cannot be checked against, TOO_LARGE.
        """
        if len(tools) > self._most:
            raise ParleyError(ErrorCode.INVALID, f"at most {self._most} tools are taken", path="$.tools")
        encoded = msgspec.json.encode(tools)
        if len(encoded) > MAX_BYTES:
            raise ParleyError(ErrorCode.TOO_LARGE, f"tools take at most {MAX_BYTES} bytes", path="$.tools")
        schemas = [msgspec.json.encode(tool.parameters) for tool in tools]
        digests = [sha256(schema).digest() for schema in schemas]
        unknown = [place for place, digest in enumerate(digests) if digest not in self._good]
        if sum(len(schemas[place]) for place in unknown) > _AT_ONCE:
            await asyncio.to_thread(_look_at, tools, unknown)
        else:
            _look_at(tools, unknown)
        for digest in digests:
            self._good[digest] = None
            self._good.move_to_end(digest)
        while len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return encoded


def _look_at(tools: Sequence[ToolDescription], places: Sequence[int]) -> None:
    if not places:
        return
    # What it takes is slow to import, and most servers' clients register nothing.
    from server.agents.schemas import schema_problem

    for place in places:
        wrong = schema_problem(tools[place].parameters)
        if wrong is not None:
            raise ParleyError(
                ErrorCode.INVALID,
                f"the schema of {tools[place].name!r} cannot be used: {wrong}",
                path=f"$.tools[{place}].parameters",
            )

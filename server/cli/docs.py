"""`parley docs`: the documents of the interface, as the server serves them."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, Final

from server.cli.exits import OK
from server.cli.options import Commands, new_command
from server.cli.output import put

__all__ = ["add_to"]

_DETAILS: Final = """\
The same is at /openapi.json and /asyncapi.json of a running server, and at /docs for people.

examples:
  parley docs openapi > openapi.json
  parley docs asyncapi | jq '.components.messages | keys'
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "docs", "print the description of the interface", _DETAILS)
    parser.add_argument(
        "document",
        metavar="DOCUMENT",
        choices=["openapi", "asyncapi"],
        help="openapi (all addresses) or asyncapi (the channel: events and commands)",
    )
    parser.set_defaults(run=_docs)


def _docs(options: argparse.Namespace) -> int:
    import msgspec

    from server.rest.openapi.asyncapi import asyncapi

    document = asyncapi() if options.document == "asyncapi" else asyncio.run(_openapi())
    put(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    return OK


async def _openapi() -> dict[str, Any]:
    """The document of an application that is put together, and not started."""
    from server.app import build, create_app
    from server.config import Config
    from server.rest.openapi.serve import openapi_of

    return openapi_of(create_app(await build(Config())))

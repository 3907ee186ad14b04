"""`parley serve`: the server, in the foreground."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from server.cli.options import Commands, add_database, add_listener, configuration, new_command

if TYPE_CHECKING:
    from server.services import Services

__all__ = ["add_to"]

_DETAILS: Final = """\
Without --database-url the server brings up a PostgreSQL of its own and takes it down again.
It listens on this machine only, for one user without a password, until tokens are configured:

  [[auth.tokens]]
  user = "ada"
  token = "..."                     # openssl rand -hex 32

examples:
  parley serve
  parley serve --port 0             (any free port; the address is printed)
  parley serve --database-url postgresql://ada@db.example.org/parley --log-format json

environment (flags beat it, it beats the file):
  PARLEY_CONFIG  PARLEY_HOST  PARLEY_PORT  PARLEY_DATABASE_URL  PARLEY_DATA_DIR  PARLEY_AGENT
  PARLEY_MODEL  PARLEY_MODEL_BASE_URL (or OPENAI_BASE_URL)  PARLEY_MODEL_API_KEY (or OPENAI_API_KEY)
  PARLEY_ALLOWED_HOSTS  PARLEY_ALLOWED_ORIGINS  PARLEY_LOG_FORMAT  PARLEY_LOG_LEVEL
  PARLEY_TLS_CERTIFICATE_FILE  PARLEY_TLS_KEY_FILE  PARLEY_TLS_KEY_PASSWORD

`parley config` shows what is in force and from where, `parley config --defaults` prints a file to start from, and
`parley check` looks for what stands in the way of a start.

SIGINT and SIGTERM stop it in order; a second one hurries.
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "serve", "start the server", _DETAILS)
    add_listener(parser)
    add_database(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    config = configuration(options)
    _warn_of_strays()
    import asyncio

    from server.run import run

    return asyncio.run(run(config, _announce))


def _warn_of_strays() -> None:
    """A misspelt variable would otherwise be passed over in silence, and the server run with something else."""
    import structlog

    from server.config import strays

    log = structlog.stdlib.get_logger(__name__)
    for stray in strays(os.environ):
        if stray.meant is not None:
            log.warning("unknown_variable", name=stray.name, did_you_mean=stray.meant)


def _announce(address: str, services: Services) -> None:
    from server.version import VERSION

    agent = services.registry.default
    tokens = len(services.config.auth.tokens)
    database = services.store.name
    if services.store.version is None:
        database += ", which does not answer yet"
    settings = services.config.model
    model = [] if settings.model is None else [f"  model     {settings.model} at {settings.origin}"]
    access = f"by token ({tokens} configured)" if tokens else "whoever is on this machine (no tokens are configured)"
    print(
        f"Parley {VERSION} listens on {address}",
        f"  console   {address}/",
        f"  agent     {agent.type} ({agent.name})",
        *model,
        f"  database  {database}",
        f"  access    {access}",
        sep="\n",
        flush=True,
    )

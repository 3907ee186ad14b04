"""Options that several commands share, and the configuration they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from server.config import Config, Reading

__all__ = ["Commands", "add_database", "add_listener", "configuration", "new_command", "reading"]

#: What `ArgumentParser.add_subparsers` returns.
Commands = Any

_KEYS: Final = {
    "host": "server.host",
    "port": "server.port",
    "database_url": "database.url",
    "data_dir": "database.data_dir",
    "log_format": "log.format",
    "log_level": "log.level",
}


def new_command(commands: Commands, name: str, summary: str, details: str) -> argparse.ArgumentParser:
    """A command whose help begins with the summary; `details` (examples, variables) are printed as they stand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_listener(parser: argparse.ArgumentParser) -> None:
    """Where the server listens."""
    parser.add_argument("--host", help="listen on this address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="listen on this port (default: 8080; 0: any free one)")


def add_database(parser: argparse.ArgumentParser) -> None:
    """Where the data is, and where the rest of the configuration is."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database-url", metavar="URL", help="use this PostgreSQL (postgresql://user@host/database)")
    where.add_argument("--data-dir", metavar="DIR", help="keep an own PostgreSQL there (the default, in a usual place)")
    parser.add_argument("--config", metavar="FILE", type=Path, help="read this file (default: DATA_DIR/parley.toml)")
    parser.add_argument("--log-format", choices=["auto", "json", "console"], help="default: auto")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="default: info")


def configuration(options: argparse.Namespace) -> Config:
    """The configuration from flags, environment and file, with the log set up by it. Raises ConfigError."""
    from server.config import ConfigError
    from server.observe.logs import configure

    config, problems = reading(options)
    if problems:
        raise ConfigError(*problems)
    configure(config.log)
    return config


def reading(options: argparse.Namespace) -> Reading:
    """The same with what is wrong told beside it, and without touching the log."""
    from server.config import read
    from storage.embedded import default_data_dir

    flags = {key: getattr(options, name) for name, key in _KEYS.items() if hasattr(options, name)}
    try:
        default = default_data_dir()
    except RuntimeError:
        # A user without a name or a home, as containers have them; who needs that directory will say so.
        default = None
    return read(flags, file=options.config, default_data_dir=default)

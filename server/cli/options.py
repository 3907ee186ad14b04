"""Options that several commands share, and the configuration they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from server.config import Config

__all__ = ["Commands", "add_database", "configuration", "new_command"]

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
    from server.config import load
    from server.observe.logs import configure
    from storage.embedded import default_data_dir

    flags = {key: getattr(options, name) for name, key in _KEYS.items() if hasattr(options, name)}
    config = load(flags, file=options.config, default_data_dir=default_data_dir())
    configure(config.log)
    return config

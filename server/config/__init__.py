"""The configuration: one TOML file, a few environment variables, a few flags; the later beats the earlier.

The file is the one that `--config` or `PARLEY_CONFIG` names, else `parley.toml` in the data directory if there is
one. The working directory is never searched, so that a checkout cannot configure a server started within it.

Each section is a frozen struct: unknown keys are refused, and an error names the key, the reason and the source.
"""

from server.config.environment import ENVIRONMENT, OTHER_VARIABLES, Stray, strays
from server.config.loading import Reading, load, read
from server.config.problems import ConfigError, Problem
from server.config.sections import (
    MIN_TOKEN_LENGTH,
    AuthSettings,
    Config,
    DatabaseSettings,
    LogSettings,
    Sections,
    ServerSettings,
    TokenSettings,
    is_loopback,
)
from server.config.sources import Source

__all__ = [
    "ENVIRONMENT",
    "MIN_TOKEN_LENGTH",
    "OTHER_VARIABLES",
    "AuthSettings",
    "Config",
    "ConfigError",
    "DatabaseSettings",
    "LogSettings",
    "Problem",
    "Reading",
    "Sections",
    "ServerSettings",
    "Source",
    "Stray",
    "TokenSettings",
    "is_loopback",
    "load",
    "read",
    "strays",
]

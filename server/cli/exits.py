"""Exit codes; `parley --help` lists them."""

from __future__ import annotations

from typing import Final

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "OK", "PENDING"]

OK: Final = 0
FAILED: Final = 1
#: What argparse uses too.
MISUSED: Final = 2
#: `parley migrate --check`: there is something to migrate.
PENDING: Final = 3
#: 128 + SIGINT, as shells report it.
INTERRUPTED: Final = 130

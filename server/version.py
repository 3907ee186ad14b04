"""Which version this is; written down once, in the distribution's metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["VERSION"]

DISTRIBUTION: Final = "parley-server"


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        # A checkout that is on the path without being installed.
        return "0+source"


VERSION: Final = _version()

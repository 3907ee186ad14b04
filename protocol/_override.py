"""`@override` for the type checker; Python 3.11's `typing` does not have it yet, and at run time it does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method):
        """The method itself."""
        return method


__all__ = ["override"]

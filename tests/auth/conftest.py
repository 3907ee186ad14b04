from __future__ import annotations

from tests.auth.people import people

__all__ = ["people"]

"""Who decides about calls that need it. By itself, as parsing a line is not to import all that a chat needs."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Approving"]

#: The user; nobody, so that all is rejected; calls that only read are approved, others rejected; all is approved; or
#: somebody else in the session, who is waited for.
Approving: TypeAlias = Literal["ask", "never", "reads", "all", "wait"]

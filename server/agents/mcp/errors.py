"""Why a call has no result: what is said of it without the protocol's own package."""

from __future__ import annotations

__all__ = ["AwayError", "RefusedError"]


class AwayError(Exception):
    """There is no connection, or there is none any longer; `began`: the call may have taken effect."""

    def __init__(self, *, began: bool) -> None:
        super().__init__()
        self.began = began


class RefusedError(Exception):
    """The server answered with an error of the protocol; the text is its own."""

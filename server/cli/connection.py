"""Where the server is and who is asking: the options of all commands that talk to one, and what their failures say."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

#: Which transport is wanted.
Choice: TypeAlias = Literal["auto", "ws", "sse", "ndjson"]

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol.client import Client, Offered, Server

__all__ = [
    "DEFAULT_URL",
    "ENVIRONMENT",
    "MisuseError",
    "add_connection",
    "add_transport",
    "client_of",
    "in_words",
    "server_of",
]

DEFAULT_URL: Final = "http://127.0.0.1:8080"

#: For the end of a help text.
ENVIRONMENT: Final = f"""\
environment:
  PARLEY_URL    the server (default: {DEFAULT_URL})
  PARLEY_TOKEN  your token; unlike --token it is not seen by others on this machine
"""


class MisuseError(Exception):
    """The command was used in a way that cannot work; the message names the option and the rule."""


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add `--url` and `--token`."""
    parser.add_argument("--url", metavar="URL", help=f"the server (default: {DEFAULT_URL})")
    parser.add_argument("--token", metavar="TOKEN", help="your token")


def add_transport(parser: argparse.ArgumentParser) -> None:
    """Add `--transport`."""
    parser.add_argument(
        "--transport", choices=["auto", "ws", "sse", "ndjson"], default="auto", help="default: auto, what works"
    )


def address_of(options: argparse.Namespace) -> tuple[str, str | None]:
    """The server's address and the token, from the options or the environment."""
    url = options.url or os.environ.get("PARLEY_URL") or DEFAULT_URL
    return url, options.token or os.environ.get("PARLEY_TOKEN") or None


def server_of(options: argparse.Namespace) -> Server:
    """What is asked once: sessions, histories, agents. Raises MisuseError for an unusable address."""
    from protocol.client import Server

    url, token = address_of(options)
    try:
        return Server(url, token)
    except ValueError as error:
        guess = f"; did you mean http://{url}?" if "://" not in url else ""
        raise MisuseError(f"--url: {error}{guess}") from None


def client_of(
    options: argparse.Namespace,
    session: str,
    after: str | None,
    *,
    transport: Choice | None = None,
    client_id: str | None = None,
    tools: Iterable[Offered] = (),
) -> Client:
    """A client of a session, at a server whose address is known to be usable."""
    from protocol.client import connect

    url, token = address_of(options)
    choice: Choice = transport or options.transport
    return connect(url, session, token=token, transport=choice, after=after, client_id=client_id, tools=tools)


def in_words(error: Exception, options: argparse.Namespace) -> str:
    """What went wrong, and what to do about it where that is known."""
    if _is_unknown(error) and hasattr(options, "url"):
        url, token = address_of(options)
        refusal = "does not know this token" if token else "wants to know who is asking"
        return f"{url} {refusal}: set PARLEY_TOKEN to your token"
    message = getattr(error, "message", None) or str(error) or "no answer came in time"
    path = getattr(error, "path", None)
    # A path from the root of a command; what is asked in a query is named in the message.
    field = f"{path[2:]}: " if isinstance(path, str) and path.startswith("$.") else ""
    return f"{field}{message}{_hint(error, options)}"


def _is_unknown(error: Exception) -> bool:
    from protocol.errors import ErrorCode, ParleyError

    return isinstance(error, ParleyError) and error.code is ErrorCode.UNAUTHORIZED


def _hint(error: Exception, options: argparse.Namespace) -> str:
    from protocol.errors import ErrorCode, ParleyError

    if not hasattr(options, "url"):
        return ""
    url, _ = address_of(options)
    if isinstance(error, ConnectionError):
        from urllib.parse import urlsplit

        if urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}:
            return "; is it running? start it with: parley serve"
        return "; is this its address (--url, PARLEY_URL)?"
    match error.code if isinstance(error, ParleyError) else None:
        case ErrorCode.NOT_FOUND | ErrorCode.SESSION_GONE if hasattr(options, "session") or hasattr(
            options, "sessions"
        ):
            return "; yours are listed by: parley sessions"
        case _:
            return ""

"""`parley completion`: what makes a shell complete the command's words; and the completion itself.

The shell runs `parley` with `_ARGCOMPLETE` set for every press of Tab. So nothing slow is imported on the way, and the
server is asked with what comes with Python: importing the client takes longer than most answers.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Final

from server.cli.connection import DEFAULT_URL
from server.cli.exits import OK
from server.cli.options import Commands, new_command
from server.cli.output import put

__all__ = ["add_to", "agent_types", "complete", "session_names"]

_DETAILS: Final = """\
examples:
  parley completion bash > ~/.local/share/bash-completion/completions/parley
  parley completion zsh > "${fpath[1]}/_parley"
  parley completion fish > ~/.config/fish/completions/parley.fish
  eval "$(parley completion bash)"                     (for this shell only)

Names of sessions and agents are completed too, from the server that --url or PARLEY_URL names, if it answers at once.
"""

#: Seconds that a press of Tab may wait for the server.
_PATIENCE: Final = 1.0
_MOST: Final = 200
_LARGEST: Final = 4 << 20


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "completion", "print what makes a shell complete this command", _DETAILS)
    parser.add_argument("shell", metavar="SHELL", choices=["bash", "zsh", "fish"], help="bash, zsh or fish")
    parser.set_defaults(run=_print)


def _print(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    put(shellcode(["parley"], shell=options.shell))
    return OK


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks; does not return."""
    import argcomplete

    nothing = argcomplete.completers.SuppressCompleter()
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=nothing)


def session_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """The user's sessions, the last used first: by their own names, or where they have none by their ids."""
    sessions = _ask(parsed_args, f"/sessions?limit={_MOST}").get("sessions", [])
    names = [session.get("alias") or session.get("id") for session in sessions]
    return [name for name in names if isinstance(name, str) and name.startswith(prefix)]


def agent_types(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> dict[str, str]:
    """The server's agents, with what they are for."""
    from server.cli.text import one_line

    agents = _ask(parsed_args, "/agents").get("agents", [])
    named = {str(agent.get("type")): one_line(str(agent.get("description", "")), 60) for agent in agents}
    return {name: description for name, description in named.items() if name.startswith(prefix)}


def _ask(options: argparse.Namespace, path: str) -> dict[str, Any]:
    """What the server answers; nothing where it does not: a press of Tab is no place for complaints."""
    import http.client
    import json
    import urllib.request

    url = getattr(options, "url", None) or os.environ.get("PARLEY_URL") or DEFAULT_URL
    token = getattr(options, "token", None) or os.environ.get("PARLEY_TOKEN")
    if not url.startswith(("http://", "https://")):
        return {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url.rstrip("/") + path, headers=headers)  # noqa: S310 - the schemes are checked
    # As the client does: no proxy is asked for the way to a server that was named.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PATIENCE) as answer:
            found = json.loads(answer.read(_LARGEST))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return found if isinstance(found, dict) else {}

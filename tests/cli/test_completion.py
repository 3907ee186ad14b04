"""Words are completed by real shells; by name is left out which of them are not here."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.cli.support import SCRIPT, environment, parley
from tests.support.server import RunningServer

#: How each shell is asked what it would offer for a command line.
BASH = """
source <(parley completion bash)
complete -p parley > /dev/null || exit 9
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
COMP_CWORD=${#COMP_WORDS[@]}
_python_argcomplete parley
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
parley completion fish | source
complete -C "$argv[1]"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
source <(parley completion zsh)
[[ -n ${_comps[parley]} ]] || exit 9
compadd() { :; }
_describe() { print -rl -- "${(@P)2}" }
words=(parley) BUFFER="$1" CURSOR=${#1}
_python_argcomplete parley
"""
SHELLS = {
    "bash": ("bash", "--norc", "-c", BASH, "bash"),
    "fish": ("fish", "--no-config", "-c", FISH),
    "zsh": ("zsh", "-f", "-c", ZSH, "zsh"),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path on which there is a `parley`."""
    script = tmp_path / "parley"
    script.write_text(f"#!{sys.executable}\n{SCRIPT}\n")
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


async def offered(shell: str, line: str, path: str, **variables: str) -> list[str]:
    """What the shell offers for the line, without what it says beside each."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    process = await asyncio.create_subprocess_exec(
        *SHELLS[shell],
        line,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        # Where shells may leave what they like.
        env=environment(PATH=path, HOME=path.partition(":")[0], TERM="dumb", **variables),
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    words = [word.partition("\t")[0].split(":")[0].strip() for word in out.decode().splitlines()]
    return [word for word in words if word]


@pytest.mark.feature("E01")
@pytest.mark.parametrize("shell", SHELLS)
async def test_commands_sessions_and_agents_are_completed(server: RunningServer, path: str, shell: str) -> None:
    await server.create_session(session_id="notes")
    await server.create_session(session_id="novel")
    unnamed = await server.create_session()
    here = {"PARLEY_URL": server.url}
    assert {"serve", "chat", "tail", "sessions", "completion"} <= set(await offered(shell, "parley ", path, **here))
    assert await offered(shell, "parley ser", path, **here) == ["serve"]
    assert set(await offered(shell, "parley chat ", path, **here)) == {"notes", "novel", unnamed}
    assert set(await offered(shell, "parley tail no", path, **here)) == {"notes", "novel"}
    assert await offered(shell, "parley sessions delete notes nov", path, **here) == ["novel"]
    assert set(await offered(shell, "parley chat --agent de", path, **here)) == {"debug"}
    assert await offered(shell, "parley chat --trans", path, **here) == ["--transport"]
    assert set(await offered(shell, "parley chat --transport ", path, **here)) == {"auto", "ws", "sse", "ndjson"}


async def test_the_server_of_the_line_itself_is_asked(server: RunningServer, path: str) -> None:
    await server.create_session(session_id="notes")
    assert await offered("bash", f"parley chat --url {server.url} no", path) == ["notes"]


async def test_a_server_that_is_not_there_or_is_none_is_passed_over_in_silence(path: str, unused_tcp_port: int) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert await offered("bash", "parley chat ", path, PARLEY_URL=f"http://127.0.0.1:{unused_tcp_port}") == []
    assert await offered("bash", "parley chat ", path, PARLEY_URL="ftp://nonsense") == []
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listener:
        address, port = listener.sockets[0].getsockname()[:2]
        began = time.monotonic()
        assert await offered("bash", "parley chat ", path, PARLEY_URL=f"http://{address}:{port}") == []
        assert time.monotonic() - began < 30


async def test_the_scripts_are_printed_for_the_shells_that_are_known() -> None:
    for shell in SHELLS:
        code, out, errors = await parley("completion", shell)
        assert (code, errors) == (0, "")
        assert "parley" in out
    code, out, _ = await parley("completion", "tcsh")
    assert (code, out) == (2, "")

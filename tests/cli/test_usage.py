"""What the command says about itself, and what it answers to mistakes. In this process: nothing is started."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from protocol.client import Timings
from server.cli import main
from server.version import VERSION
from tests.cli.support import parley


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONFIG", "HOST", "PORT", "DATABASE_URL", "DATA_DIR", "TOKEN", "URL", "LOG_FORMAT", "LOG_LEVEL"):
        monkeypatch.delenv(f"PARLEY_{name}", raising=False)
    monkeypatch.setenv("PARLEY_DATA_DIR", str(tmp_path / "data"))


def leave(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("--version") == 0
    assert capsys.readouterr().out == f"parley {VERSION}\n"


@pytest.mark.feature("E01")
@pytest.mark.parametrize(
    "command", ["serve", "chat", "tail", "sessions", "check", "config", "migrate", "docs", "completion"]
)
def test_each_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("--help") == 0
    assert re.search(rf"\n    {command}\s", capsys.readouterr().out)
    assert leave(command, "--help") == 0
    assert f"examples:\n  parley {command}" in capsys.readouterr().out.replace("PARLEY_TOKEN=... ", "")


def test_the_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    from server.cli import exits

    leave("--help")
    text = capsys.readouterr().out
    for name in exits.__all__:
        assert f"\n  {getattr(exits, name)}  " in text


@pytest.mark.parametrize(
    "arguments", [(), ("dance",), ("serve", "--port", "x"), ("tail",), ("serve", "--nonsense"), ("completion", "tcsh")]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert leave(*arguments) == 2


def test_a_wrong_configuration_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[server]\nprot = 1\n")
    assert main(["serve", "--config", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"parley: server.prot: there is no such key; did you mean server.port? (from {file}, line 2)\n"
    )
    assert main(["migrate", "--config", str(tmp_path / "none.toml")]) == 2
    assert main(["serve", "--port", "70000"]) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_tokens_nothing_but_loopback_is_served(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", host]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"parley: server.host: {host} can be reached from other machines")
    assert "[[auth.tokens]]" in message


def test_a_wrong_agent_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PARLEY_AGENT", "nobody")
    assert main(["serve", "--port", "0"]) == 2
    assert "agents: the default agent 'nobody' does not exist" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_exit_code_1(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("protocol.client.settings.DEFAULT", Timings(opening=0.05))
    assert main(["tail", "x", "--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 1
    assert "does not answer" in capsys.readouterr().err


async def test_files_in_the_working_directory_shadow_nothing(tmp_path: Path) -> None:
    for name in ("server", "storage", "protocol", "parley", "msgspec", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    assert await parley("--version", cwd=tmp_path) == (0, f"parley {VERSION}\n", "")
    code, _, errors = await parley("serve", "--host", "0.0.0.0", cwd=tmp_path)
    assert code == 2
    assert "shadowed" not in errors


def test_the_command_leaves_the_path_alone() -> None:
    before = list(sys.path)
    leave("--version")
    main(["serve", "--port", "70000"])
    assert sys.path == before

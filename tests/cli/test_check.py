"""`parley check` as a command: its output, its exit code, and that it leaves everything as it was."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from server.check import CHECKS
from server.cli import check, main
from tests.cli.support import SCRIPT, environment, parley
from tests.support.server import RunningServer

TOKENS = '[[auth.tokens]]\nuser = "ada"\ntoken = "{}"\n'
WEAK = "changeme-changeme"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parley.toml"
    path.write_text("[agents]\nentry_points = false\n")
    return path


@pytest.fixture
def weak(file: Path) -> None:
    file.write_text(TOKENS.format(WEAK))


def contents(directory: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in directory.rglob("*"))


@pytest.mark.feature("E01")
async def test_everything_is_looked_at_and_nothing_is_changed(file: Path, tmp_path: Path, unused_tcp_port: int) -> None:
    before = contents(tmp_path)
    arguments = ("--config", str(file), "--data-dir", str(tmp_path / "data"), "--port", str(unused_tcp_port))
    code, out, errors = await parley("check", *arguments, cwd=tmp_path)
    assert (code, errors) == (0, "")
    for each in CHECKS:
        assert f"{each.name}: {each.about}\n" in out
    assert f"  ok       127.0.0.1 port {unused_tcp_port} is free\n" in out
    assert out.splitlines()[-1].startswith("0 errors, 0 warnings, ")
    assert "\x1b" not in out
    assert contents(tmp_path) == before


async def test_a_server_that_runs_is_found_in_order(file: Path, server: RunningServer, database_url: str) -> None:
    code, out, _ = await parley(
        "check",
        "listener",
        "database",
        "--config",
        str(file),
        "--port",
        str(server.port),
        "--database-url",
        database_url,
    )
    assert code == 0
    assert "  note     a Parley " in out
    assert "  ok       its tables are those of this version\n" in out
    # The tests' database is run without this, for speed.
    assert "fsync is off" in out


@pytest.mark.parametrize(
    ("text", "arguments", "code"),
    [
        ("", [], 0),
        (TOKENS.format(WEAK), [], 0),
        (TOKENS.format(WEAK), ["--strict"], 1),
        ("[server]\nprot = 1\n", [], 1),
        # Mistakes are told whatever was asked.
        ("[server]\nprot = 1\n", ["python"], 1),
    ],
)
def test_exit_codes(text: str, arguments: list[str], code: int, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    assert main(["check", *(arguments or ["configuration"]), "access", "--config", str(file)]) == code
    out, errors = capsys.readouterr()
    assert errors == ""
    assert WEAK not in out


def test_one_object_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[server]\nprot = 1\n")
    assert main(["check", "--json", "configuration", "listener", "--config", str(file)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["findings"][0] == {
        "check": "configuration",
        "level": "error",
        "what": "server.prot: there is no such key; did you mean server.port?",
        "advice": f"mend it in {file}, line 2",
    }
    assert answer["findings"][-1]["what"] == "not looked at, as [server] has mistakes"


def test_an_unknown_check_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "everything"])
    assert caught.value.code == 2
    assert "there is no check 'everything'; there are: configuration, " in capsys.readouterr().err


def test_the_help_names_all_checks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "  " + "  ".join(each.name for each in CHECKS) + "\n" in capsys.readouterr().out


def test_the_names_are_completed() -> None:
    parser = argparse.ArgumentParser()
    check.add_to(parser.add_subparsers())
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    (action,) = [each for each in commands["check"]._actions if each.dest == "checks"]  # type: ignore[index]
    assert list(action.completer(prefix="")) == [each.name for each in CHECKS]


async def test_a_misspelt_variable_is_a_warning_of_the_server_and_no_error(tmp_path: Path) -> None:
    # So that it ends at once, right after.
    code, _, errors = await parley(
        *("serve", "--data-dir", str(tmp_path), "--log-format", "json"),
        PARLEY_LOGLEVEL="debug",
        PARLEY_SOMETHING_ELSE="x",
        PARLEY_AGENT="nobody",
    )
    assert code == 2
    warning, mistake = errors.splitlines()
    logged = json.loads(warning)
    assert (logged["level"], logged["event"]) == ("warning", "unknown_variable")
    assert (logged["name"], logged["did_you_mean"]) == ("PARLEY_LOGLEVEL", "PARLEY_LOG_LEVEL")
    assert "'nobody' does not exist" in mistake


async def on_a_terminal(*arguments: str, **variables: str) -> str:
    """The output of the command with a terminal as its standard output."""
    terminal, end = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=end,
            env=environment(TERM="xterm", COLUMNS="60", **variables),
        )
        os.close(end)
        seen = b""
        loop = asyncio.get_running_loop()
        while True:
            try:
                seen += await loop.run_in_executor(None, os.read, terminal, 65536)
            except OSError:
                # What Linux says of a terminal whose other end is closed.
                break
        await process.wait()
        return seen.decode()
    finally:
        os.close(terminal)


@pytest.mark.skipif(sys.platform != "linux", reason="terminals end otherwise elsewhere")
async def test_colours_and_short_lines_are_for_terminals(file: Path, weak: None) -> None:
    arguments = ("check", "access", "configuration", "--config", str(file))
    out = await on_a_terminal(*arguments)
    assert "\x1b[33mwarning\x1b[0m" in out
    assert max(len(line.replace(str(file), "")) for line in out.splitlines()) <= 72
    assert "\x1b" not in await on_a_terminal(*arguments, NO_COLOR="1")


async def test_a_hostile_environment_spoils_nothing(file: Path, tmp_path: Path) -> None:
    """Variables that are empty, misspelt, of other programs or not even text; a working directory with traps."""
    for name in ("server", "msgspec", "asyncio"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    variables = {
        "HOME": "/nowhere",
        "XDG_DATA_HOME": "relative",
        "PATH": "",
        "PARLEY_PORT": "tcp://10.0.0.1:80",
        "PARLEY_DATABSE_URL": "postgresql://ada:s3cret@db/x",
        "PARLEY_LOG_LEVEL": "",
        "PARLEY_\udcff": "\udcfe",
        "PARLEY_X\x1b[31m": "x",
        "PGHOST": "nowhere.invalid",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    names = ("configuration", "python", "process", "access", "agents", "database")
    code, out, errors = await parley(
        "check", *names, "--config", str(file), "--data-dir", str(tmp_path / "data"), cwd=tmp_path, **variables
    )
    assert (code, errors) == (0, "")
    assert "nothing reads the variable PARLEY_DATABSE_URL\n           -> did you mean PARLEY_DATABASE_URL?" in out
    assert "\x1b" not in out
    assert "s3cret" not in out
    assert "shadowed" not in out
    code, out, errors = await parley(
        "check", "configuration", "--json", "--config", str(file), cwd=tmp_path, **variables
    )
    assert (code, errors) == (0, "")
    assert len(json.loads(out)["findings"]) == 5

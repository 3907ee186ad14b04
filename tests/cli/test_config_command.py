"""`parley config`: what is in force and from where, for people and for programs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from server.cli import main

TEXT = """\
[server]
port = 9000
[[auth.tokens]]
user = "ada"
token = "s3cret-s3cret-s3cret"
[database]
url = "postgresql://ada:s3cret@db/x?sslpassword=s3cret"
[agents.overrides.ask]
prompt = "Answer as briefly as a telegram, and never say more than what was asked for, or be sorry."
"""


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "HOST", "PORT", "DATABASE_URL", "DATA_DIR", "LOG_FORMAT", "LOG_LEVEL", "MODEL"):
        monkeypatch.delenv(f"PARLEY_{name}", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parley.toml"
    path.write_text(TEXT)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    return out


def test_every_key_with_its_value_and_its_source(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_LOG_LEVEL", "error")
    monkeypatch.setenv("PARLEY_MODEL", "m")
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    lines = [line.split() for line in shown(capsys, "--config", str(file), "--host", "::1").splitlines()]
    assert ["file:", str(file)] in lines
    for line in (
        ["*", "host", '"::1"', "command", "line"],
        ["*", "port", "9000", f"{file}:2"],
        ["keepalive_timeout", "75.0", "default"],
        ["*", "tokens[0].token", '"***"', f"{file}:5"],
        ["*", "url", '"postgresql://ada:***@db/x?sslpassword=***"', f"{file}:7"],
        ["*", "level", '"error"', "PARLEY_LOG_LEVEL"],
        ["*", "api_key", '"***"', "OPENAI_API_KEY", "(borrowed)"],
        ["data_dir", "-", "default"],
    ):
        assert line in lines
    assert "s3cret" not in str(lines)


def test_columns_are_aligned_and_long_values_are_cut(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--config", str(file))
    server = out.partition("[server]\n")[2].partition("\n\n")[0].splitlines()
    assert len({line.rindex("  ") for line in server}) == 1
    assert "or be sorry" not in out
    assert max(map(len, (line.replace(str(file), "") for line in out.splitlines()))) < 120


def test_only_what_was_set(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--changed", "--config", str(file))
    assert "default" not in out
    assert [line for line in out.splitlines() if line.startswith("[")] == [
        "[server]",
        "[database]",
        "[auth]",
        "[agents]",
    ]


def test_one_object_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer: dict[str, Any] = json.loads(shown(capsys, "--json", "--config", str(file)))
    assert answer["file"] == str(file)
    assert answer["keys"]["server.port"] == {
        "value": 9000,
        "default": 8080,
        "changed": True,
        "source": {"kind": "file", "name": str(file), "line": 2},
    }
    assert answer["keys"]["server.host"]["source"] == {"kind": "default", "name": None, "line": None}
    assert answer["keys"]["auth.tokens[0].token"]["value"] == "***"
    assert "s3cret" not in str(answer)


def test_a_file_to_start_from_whatever_is_configured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "missing.toml"))
    out = shown(capsys, "--defaults")
    assert "server" in tomllib.loads(out)
    (tmp_path / "new.toml").write_text(out)
    assert main(["config", "--changed", "--config", str(tmp_path / "new.toml")]) == 0
    assert capsys.readouterr().out == f"file: {tmp_path / 'new.toml'}\n"


def test_all_mistakes_are_told_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("[server]\nprot = 1\nhost = 2\n")
    assert main(["config", "--config", str(file)]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors == (
        f"parley: server.prot: there is no such key; did you mean server.port? (from {file}, line 2)\n"
        f"parley: server.host: expected `str`, got `int` (from {file}, line 3)\n"
    )


def test_forms_exclude_each_other() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["config", "--json", "--defaults"])
    assert caught.value.code == 2

"""Tokens, and who may read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.support import context, found, said

GOOD = "d1Zk3-9vQ_xP7.bLw2mT5aYh8Rj4Nc6Ue"
TOKENS = '[[auth.tokens]]\nuser = "ada"\ntoken = "{}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "parley.toml"
    path.touch(mode=0o600)
    return path


def test_without_tokens_this_machine_is_the_limit() -> None:
    (finding,) = found("access", context())
    assert finding.level == "ok"
    assert "whoever is on this machine" in finding.what


@pytest.mark.parametrize(
    "token",
    [
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "0101010101010101",
        "my-secret-token-for-parley",
        "changeme-changeme-changeme",
        "1234567890123456",
    ],
)
def test_a_token_that_can_be_guessed_is_a_warning_that_does_not_quote_it(file: Path, token: str) -> None:
    file.write_text(TOKENS.format(token))
    (finding,) = said(found("access", context(file)))
    assert finding.startswith("warning: auth.tokens[0]: the token of ada can be guessed")
    assert token not in finding


@pytest.mark.parametrize("token", [GOOD, "9f86d081884c7d659a2feaa0c55ad015", "Zk3-9vQ_xP7.bLw2"])
def test_a_random_token_is_none(file: Path, token: str) -> None:
    file.write_text(TOKENS.format(token))
    assert said(found("access", context(file))) == []


def test_a_file_with_secrets_that_everybody_may_read(file: Path) -> None:
    file.write_text(TOKENS.format(GOOD))
    assert said(found("access", context(file))) == []
    file.chmod(0o640)
    assert said(found("access", context(file))) == []
    file.chmod(0o644)
    (finding,) = said(found("access", context(file)))
    assert finding.startswith(f"warning: {file} holds a secret (auth.tokens[0].token), and everybody on this machine ")
    assert finding.endswith(f" -> chmod 600 {file}")
    # A digest may be read.
    file.write_text(f'[[auth.tokens]]\nuser = "ada"\ntoken_sha256 = "{"5e" * 32}"\n')
    assert said(found("access", context(file))) == []
    # What the environment says does not stand in the file.
    environ = {"PARLEY_DATABASE_URL": "postgresql://ada:s3cret@db/x"}
    assert said(found("access", context(file, environ))) == []


def test_a_password_on_the_command_line() -> None:
    (finding,) = said(found("access", context(database__url="postgresql://ada:s3cret@db/x")))
    assert finding.startswith(
        "warning: database.url holds a secret, and everybody on this machine sees the command line"
    )
    assert said(found("access", context(database__url="postgresql://ada@db/x?sslmode=require"))) == []


def test_what_others_reach_wants_a_proxy_and_a_name(file: Path) -> None:
    file.write_text(TOKENS.format(GOOD))
    proxy, name = said(found("access", context(file, server__host="0.0.0.0")))
    assert proxy.startswith("note: 0.0.0.0 is reached from other machines without encryption")
    assert "server.allowed_hosts" in name
    file.write_text('[server]\nallowed_hosts = ["parley.example.org"]\n' + TOKENS.format(GOOD))
    assert len(said(found("access", context(file, server__host="0.0.0.0")))) == 1


def test_the_file_went_away_since_it_was_read(file: Path) -> None:
    file.write_text(TOKENS.format(GOOD))
    before = context(file)
    file.unlink()
    assert said(found("access", before)) == []

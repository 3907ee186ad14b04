"""What is hidden when a configuration is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import load
from server.config.keys import sections, words
from server.config.secrets import HIDDEN, hidden, hidden_url
from server.config.shown import entries


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s3cret@db/x", "postgresql://ada:***@db/x"),
        ("postgresql://:s3cret@db/x", "postgresql://:***@db/x"),
        ("postgresql://ada@db/x", "postgresql://ada@db/x"),
        # Not escaped, as it should be, and no less a secret.
        ("postgresql://ada:s3c@ret/?#@db/x", "postgresql://ada:***@db/x"),
        ("postgresql://db/x?password=s3cret&sslmode=require", "postgresql://db/x?password=***&sslmode=require"),
        ("postgresql://db/x?sslmode=require&PassWord=s3cret#s", "postgresql://db/x?sslmode=require&PassWord=***#s"),
        ("https://x/openai?api-version=1&code=s3cret", "https://x/openai?api-version=1&code=***"),
        ("https://x:8080/v1", "https://x:8080/v1"),
        ("what? a=b", "what? a=b"),
    ],
)
def test_urls_lose_passwords_and_unknown_parameters(url: str, shown: str) -> None:
    assert hidden_url(url) == shown
    assert "s3c" not in hidden_url(url)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("auth.tokens[0].token", "s", HIDDEN),
        ("auth.tokens[0].token_sha256", "s", HIDDEN),
        ("auth.tokens[0].user", "ada", "ada"),
        ("model.api_key", "s", HIDDEN),
        ("model.max_tokens", 5, 5),
        ("model.timeout_first_token", 1.5, 1.5),
        ('model.extra_headers."X.Y"', "s", HIDDEN),
        ("model.extra_body.user", "ada", "ada"),
        ("model.extra_body.api-key", "s", HIDDEN),
        ("model.extra_body.keys", [{"secret": "s", "n": 1}], [{"secret": HIDDEN, "n": 1}]),
        ("server.allowed_hosts", ("a", "b"), ["a", "b"]),
        ("model.api_key", "", ""),
        ("database.data_dir", "/srv/\udcff", "/srv/\\udcff"),
        ("model.api_key", None, None),
    ],
)
def test_secrets_are_known_by_the_names_of_their_keys(key: str, value: object, shown: object) -> None:
    assert hidden(key, value) == shown


def test_every_key_that_may_hold_a_secret_is_one_that_we_know_of() -> None:
    """Whoever adds another one adds it here, and looks whether it is hidden."""
    texts = [key.name for section in sections() for key in section.keys if words(key.type).startswith("text")]
    texts = [name for name in texts if hidden(name, "any") == HIDDEN]
    assert texts == ["tls.key_password", "auth.tokens[].token", "auth.tokens[].token_sha256", "model.api_key"]


def test_no_secret_of_a_whole_configuration_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text(
        '[[auth.tokens]]\nuser = "ada"\ntoken = "s3cret-s3cret-s3cret"\n'
        '[database]\nurl = "postgresql://ada:s3cret@db/x?sslpassword=s3cret"\n'
        '[model]\nmodel = "m"\nbase_url = "https://x/v1?key=s3cret"\napi_key = "s3cret"\n'
        '[model.extra_headers]\nAuthorization = "Basic s3cret"\n[model.extra_body]\nauth = { token = "s3cret" }\n'
    )
    config = load(environ={}, file=file)
    assert "s3cret" not in str([*entries(config)])
    assert "s3cret" not in repr(config)

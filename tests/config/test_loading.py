from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from server.config import Config, ConfigError, is_loopback, load

TOKEN = "a-token-that-is-long-enough"


def read(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None, **flags: object) -> Config:
    file = tmp_path / "parley.toml"
    file.write_text(text)
    return load({key.replace("__", "."): value for key, value in flags.items()}, environ=environ or {}, file=file)


def refusal(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, environ, **flags)
    return str(caught.value)


def test_nothing_given_is_a_working_configuration_on_loopback() -> None:
    config = load(environ={})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
    assert config.database.url is None
    assert config.auth.tokens == ()
    assert config.file is None
    assert config.base == Path.cwd()


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    text = '[server]\nport = 1\nhost = "::1"\n[log]\nlevel = "error"\n'
    environ = {"PARLEY_PORT": "2", "PARLEY_HOST": "localhost"}
    config = read(tmp_path, text, environ, server__port=3, log__format=None)
    assert (config.server.port, config.server.host, config.log.level) == (3, "localhost", "error")
    assert config.file == tmp_path / "parley.toml"
    assert config.base == tmp_path


def test_every_section_is_read(tmp_path: Path) -> None:
    text = """
    [server]
    allowed_hosts = ["parley.example.org", "*.example.net", "10.0.0.7"]
    allowed_origins = ["https://ide.example.org", "vscode-webview://abc"]
    [database]
    url = "postgresql://ada@db/parley"
    pool_size = 3
    [auth]
    tokens = [{user = "ada", token = "a-token-that-is-long-enough"}]
    [channel]
    heartbeat_interval = 5
    [agents]
    default = "coder"
    [turns]
    max_steps = 2
    [log]
    format = "json"
    """
    config = read(tmp_path, text)
    assert config.channel.heartbeat_interval == 5
    assert config.turns.max_steps == 2
    assert config.agents.default == "coder"
    assert config.database.pool_size == 3
    assert config.auth.tokens[0].digest == hashlib.sha256(TOKEN.encode()).digest()


def test_lists_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    environ = {"PARLEY_ALLOWED_HOSTS": "a.example, b.example,", "PARLEY_ALLOWED_ORIGINS": "https://c.example"}
    config = read(tmp_path, environ=environ)
    assert config.server.allowed_hosts == ("a.example", "b.example")
    assert config.server.allowed_origins == ("https://c.example",)


def test_the_file_is_named_by_a_flag_by_the_environment_or_lies_in_the_data_directory(tmp_path: Path) -> None:
    for name, port in (("flag.toml", 1), ("environment.toml", 2), ("data/parley.toml", 3), ("default/parley.toml", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"[server]\nport = {port}\n")
    named = {"PARLEY_CONFIG": str(tmp_path / "environment.toml")}
    data = {"database.data_dir": str(tmp_path / "data")}
    default = tmp_path / "default"
    ports = [
        load(data, environ=named, file=tmp_path / "flag.toml", default_data_dir=default).server.port,
        load(data, environ=named, default_data_dir=default).server.port,
        load(data, environ={}, default_data_dir=default).server.port,
        load(environ={}, default_data_dir=default).server.port,
    ]
    assert ports == [1, 2, 3, 4]


def test_the_working_directory_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parley.toml").write_text("[server]\nport = 1\n")
    monkeypatch.chdir(tmp_path)
    assert load(environ={}, default_data_dir=tmp_path / "elsewhere").server.port == 8080


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "server.prot: there is no such key; did you mean server.port?"),
        ("[sever]\nport = 1", "sever: there is no such key; did you mean server?"),
        ('[server]\nport = "80"', "server.port: expected `int`, got `str`"),
        ("[server]\nport = 70000", "server.port: expected `int` <= 65535"),
        ('server = "x"', "server: expected a table"),
        ('[server]\nallowed_hosts = ["a:80"]', "server.allowed_hosts: 'a:80' is not a host name"),
        ('[server]\nallowed_origins = ["*"]', "server.allowed_origins: '*' is not of the form"),
        ('[server]\nallowed_origins = ["https://a/b"]', "server.allowed_origins: 'https://a/b' is not of the form"),
        ('[database]\nurl = "mysql://x"', "database.url: it does not begin with postgresql://"),
        ('[log]\nformat = "xml"', "log.format: expected `auto`, `console` or `json`, got 'xml'"),
        ('[[auth.tokens]]\nuser = "ada"', "auth.tokens[0]: give either token or token_sha256"),
        ('[[auth.tokens]]\nuser = "ada"\ntoken = "short"', "auth.tokens[0].token: it needs 16 characters"),
        ('[[auth.tokens]]\nuser = "ada"\ntoken_sha256 = "00"', "auth.tokens[0].token_sha256: it is not 64"),
        ("[server", "Expected ']'"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_key_reason_and_file(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, text)
    assert said in message
    assert str(tmp_path / "parley.toml") in message


def test_a_mistake_elsewhere_is_told_with_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path, environ={"PARLEY_PORT": "many"}) == (
        "server.port: 'many' is not a number (from the environment, PARLEY_PORT)"
    )
    assert "server.port: expected `int` <= 65535 (from the environment, PARLEY_PORT)" in refusal(
        tmp_path, environ={"PARLEY_PORT": "70000"}
    )
    assert "(from the command line)" in refusal(tmp_path, server__port=-1)
    with pytest.raises(ConfigError, match="No such file"):
        load(environ={"PARLEY_CONFIG": str(tmp_path / "missing.toml")})


def test_a_kubernetes_service_link_is_not_taken_for_the_port(tmp_path: Path) -> None:
    assert read(tmp_path, environ={"PARLEY_PORT": "tcp://10.0.0.1:80"}).server.port == 8080


def test_the_same_token_for_two_users_is_refused(tmp_path: Path) -> None:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    text = f'[auth]\ntokens = [{{user = "a", token = "{TOKEN}"}}, {{user = "b", token_sha256 = "{digest}"}}]'
    assert "auth.tokens: the same token is given twice" in refusal(tmp_path, text)


def test_a_token_is_never_quoted_not_even_a_bad_one(tmp_path: Path) -> None:
    assert "s3cret" not in refusal(tmp_path, '[[auth.tokens]]\nuser = "ada"\ntoken = "s3cret but with spaces"')
    config = read(
        tmp_path,
        f'[auth]\ntokens = [{{user = "a", token = "{TOKEN}"}}]\n[database]\nurl = "postgresql://u:s3cret@db/x"',
    )
    assert TOKEN not in repr(config)
    assert "s3cret" not in repr(config)
    assert "postgresql://u:***@db/x" in repr(config)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "parley.example.org", ""])
def test_without_tokens_only_loopback_addresses_are_served(tmp_path: Path, host: str) -> None:
    message = refusal(tmp_path, server__host=host)
    assert message.startswith("server.host: ")
    if host:
        assert "configure [[auth.tokens]], or listen on 127.0.0.1 (from the command line)" in message


def test_with_tokens_any_address_is_served(tmp_path: Path) -> None:
    text = f'[server]\nhost = "0.0.0.0"\n[[auth.tokens]]\nuser = "ada"\ntoken = "{TOKEN}"'
    assert read(tmp_path, text).server.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
    ],
)
def test_what_counts_as_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_nearest_of_database_and_data_directory_counts(tmp_path: Path) -> None:
    text = '[database]\nurl = "postgresql://file/x"\n'
    url, data = {"PARLEY_DATABASE_URL": "postgresql://environment/x"}, {"PARLEY_DATA_DIR": str(tmp_path)}
    assert read(tmp_path, text, data).database.url is None
    assert read(tmp_path, text, url | data).database.url == "postgresql://environment/x"
    assert read(tmp_path, text, url, database__data_dir=str(tmp_path)).database.url is None
    assert read(tmp_path, text, data, database__url="postgresql://flag/x").database.url == "postgresql://flag/x"

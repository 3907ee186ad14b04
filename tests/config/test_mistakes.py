"""Mistakes are told all at once, each once, by key, reason and source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect as types

from server.config import ENVIRONMENT, Config, Problem, read
from server.config.keys import Key, find_key, meant, sections
from server.config.shown import as_toml

TOKEN = "Zk3-9vQ_xP7.bLw2mT5a"
KEYS = [key for section in sections() for key in section.keys]


def problems(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    """Of each mistake the text, with `FILE` for the file."""
    return [
        str(each).replace(str(tmp_path / "parley.toml"), "FILE") for each in found(tmp_path, text, environ, **flags)
    ]


def found(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None, **flags: object) -> tuple[Problem, ...]:
    file = tmp_path / "parley.toml"
    file.write_text(text, encoding="utf-8")
    return read({name.replace("__", "."): value for name, value in flags.items()}, environ=environ or {}, file=file)[1]


def test_all_mistakes_are_told_at_once_each_with_its_source(tmp_path: Path) -> None:
    text = """\
[server]
prot = 1
shutdown_timeout = "long"
allowed_hosts = ["fine", 7]
[databse]
url = "x"
[database]
pool_size = 0
[[auth.tokens]]
user = "ada"
token = "short"
[[auth.tokens]]
token = "Zk3-9vQ_xP7.bLw2mT5a"
[[auth.tokens]]
user = "bob"
token_sha256 = 5
[agents.overrides.coder]
prompt = "fine"
[agents.overrides.ask]
nam = "x"
[model]
model = "m"
base_url = "ftp://x"
[model.extra_headers]
fine = "a"
"X.Y" = 1
[log]
level = "loud"
"""
    assert sorted(problems(tmp_path, text, {"PARLEY_PORT": "many", "PARLEY_LOG_FORMAT": "x"}, server__host=7)) == [
        "agents.overrides.ask.nam: there is no such key; did you mean agents.overrides.ask.name? (from FILE, line 20)",
        "auth.tokens[0].token: it needs 16 characters or more out of A-Z a-z 0-9 - . _ ~ + / (from FILE, line 11)",
        "auth.tokens[1].user: it is missing (from FILE, line 12)",
        "auth.tokens[2].token_sha256: expected `str`, got `int` (from FILE, line 16)",
        "database.pool_size: expected `int` >= 1 (from FILE, line 8)",
        "databse: there is no such key; did you mean database? (from FILE, line 5)",
        "log.format: expected `auto`, `console` or `json`, got 'x' (from the environment, PARLEY_LOG_FORMAT)",
        "log.level: expected `debug`, `error`, `info` or `warning`, got 'loud' (from FILE, line 28)",
        "model.base_url: it is not of the form https://host[:port]/path (from FILE, line 23)",
        'model.extra_headers."X.Y": expected `str`, got `int` (from FILE, line 26)',
        "server.allowed_hosts[1]: expected `str`, got `int` (from FILE, line 4)",
        "server.host: expected `str`, got `int` (from the command line)",
        "server.port: 'many' is not a number (from the environment, PARLEY_PORT)",
        "server.prot: there is no such key; did you mean server.port? (from FILE, line 2)",
        "server.shutdown_timeout: expected `float`, got `str` (from FILE, line 3)",
    ]


def test_what_is_right_is_there_beside_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text('[server]\nport = 9000\nhost = 7\n[log]\nlevel = "error"\n')
    config, mistakes = read(environ={}, file=file)
    assert len(mistakes) == 1
    assert (config.server.port, config.server.host, config.log.level) == (9000, "127.0.0.1", "error")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # Without tokens the address is wrong, but that there are none is known already.
        ('[server]\nhost = "0.0.0.0"\n[[auth.tokens]]\nuser = 1\ntoken = "x"', ["auth.tokens[0].user"]),
        ('[model]\nmodel = 1\nbase_url = "http://x"', ["model.model"]),
        ('[model]\nmodel = "m"\napi_key = 1', ["model.api_key"]),
        ('[[auth.tokens]]\nuser = "ada"\ntoken = 1', ["auth.tokens[0].token"]),
        # What is there, and wrong by itself, is told all the same.
        ('[server]\nport = "x"\nallowed_hosts = ["a:1"]', ["server.port", "server.allowed_hosts"]),
        (
            '[server]\nallowed_origins = ["*"]\nallowed_hosts = ["a:1"]',
            ["server.allowed_hosts", "server.allowed_origins"],
        ),
    ],
)
def test_what_only_follows_from_a_mistake_is_not_told(tmp_path: Path, text: str, told: list[str]) -> None:
    assert [problem.key for problem in found(tmp_path, text)] == told


def test_places_in_an_array_are_those_of_the_file_whatever_was_wrong_before(tmp_path: Path) -> None:
    rows = [f'{{ user = "u{n}", token = {n if n % 2 else chr(34) + TOKEN + str(n) + chr(34)} }}' for n in range(6)]
    text = "[auth]\ntokens = [\n" + ",\n".join(rows) + "\n]\n"
    assert [(problem.key, problem.source and problem.source.line) for problem in found(tmp_path, text)] == [
        ("auth.tokens[1].token", 4),
        ("auth.tokens[3].token", 6),
        ("auth.tokens[5].token", 8),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 1", "port: there is no such key; did you mean server.port? (from FILE, line 1)"),
        ("[server]\npool_size = 1", "server.pool_size: there is no such key; did you mean database.pool_size?"),
        ("[serverr.deep]\nx = 1", "serverr: there is no such key; did you mean server?"),
        ("[auth.token]\nuser = 1", "auth.token: there is no such key; did you mean auth.tokens?"),
        ("[model]\nzzz = 1", "model.zzz: there is no such key (from FILE, line 2)"),
        ("auth = []", "auth: expected a table (from FILE, line 1)"),
        ("[auth]\ntokens = 1", "auth.tokens: expected `array`, got `int` (from FILE, line 2)"),
        ("a = 1\na = 2", "FILE: "),
        ('[server]\nhost = "\\ud800"', "FILE: "),
    ],
)
def test_mistakes_of_form(tmp_path: Path, text: str, told: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(told)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    config, (problem,) = read(environ={}, file=tmp_path)
    assert str(problem) == f"{tmp_path}: Is a directory"
    assert config == Config(file=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[log]\nlevel = "\xe4"\n')
    assert "utf-8" in str(read(environ={}, file=tmp_path / "latin.toml")[1][0])


def test_a_data_directory_that_cannot_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may look anywhere, and tests may be run by root.
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    environ = {"PARLEY_DATA_DIR": "~nobody.at.all/x"}
    (problem,) = read(environ=environ)[1]
    text = "database.data_dir: ~nobody.at.all/x is nobody's home (from the environment, PARLEY_DATA_DIR)"
    assert str(problem) == text
    monkeypatch.setattr(Path, "is_file", closed)
    (problem,) = read({"database.data_dir": "/srv/x"}, environ={})[1]
    assert str(problem) == "database.data_dir: Permission denied: /srv/x (from the command line)"
    # Nobody has named it, and it may be somebody else's.
    assert read(environ={}, default_data_dir=Path("/srv/x"))[1] == ()


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert found(tmp_path, "\ufeff[server]\nport = 1\n") == ()


def test_a_message_that_looks_like_another_one_misleads_nobody(tmp_path: Path) -> None:
    told = problems(tmp_path, '[server]\nallowed_hosts = ["x - at `$.model.model`"]')
    why = "'x - at `$.model.model`' is not a host name or an address (without a port)"
    assert told == [f"server.allowed_hosts: {why} (from FILE, line 2)"]


# --- for every key


def wrong(info: types.Type) -> Any:
    """A value of another type than the key's."""
    match info:
        case types.Metadata(type=inner):
            return wrong(inner)
        case types.UnionType(types=kinds):
            return wrong(kinds[0])
        case types.StrType() | types.LiteralType():
            return 7
        case _:
            return "seven"


def in_a_file(key: Key, value: Any) -> str:
    """A file that sets one key."""
    table, _, leaf = key.name.rpartition(".")
    header = f"[[{table.removesuffix('[]')}]]" if table.endswith("[]") else f"[{table.replace('*', 'ask')}]"
    return f"{header}\n\n{leaf} = {as_toml(value)}\n"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_value_of_the_wrong_type_is_refused_by_name_with_its_source(key: Key, tmp_path: Path) -> None:
    name = key.name.replace("[]", "[0]").replace("*", "ask")
    told = problems(tmp_path, in_a_file(key, wrong(key.type)))
    assert (
        len([text for text in told if text.startswith(f"{name}: expected ") and text.endswith("(from FILE, line 3)")])
        == 1
    )
    if key.name.count(".") == 1 and "[]" not in key.name:
        told = problems(tmp_path, "", **{key.name.replace(".", "__"): wrong(key.type)})
        assert len([text for text in told if text.startswith(f"{name}: expected ")]) == 1
        assert told[0].endswith("(from the command line)")


@pytest.mark.parametrize("variable", ENVIRONMENT, ids=str)
def test_a_variable_is_named_when_its_value_is_wrong(variable: str, tmp_path: Path) -> None:
    bad = {
        "PARLEY_PORT": "70000",
        "PARLEY_ALLOWED_HOSTS": "a b",
        "PARLEY_ALLOWED_ORIGINS": "x",
        "PARLEY_TLS_KEY_FILE": "key.pem",
        "PARLEY_TLS_KEY_PASSWORD": "7",
        "PARLEY_HOST": "0.0.0.0",
        "PARLEY_DATABASE_URL": "mysql://x",
        "PARLEY_MODEL": "x" * 300,
        "PARLEY_MODEL_BASE_URL": "x",
        "PARLEY_MODEL_API_KEY": "a b",
        "PARLEY_LOG_FORMAT": "xml",
        "PARLEY_LOG_LEVEL": "loud",
    }
    if variable not in bad:
        # Whether there is such an agent, directory or file is not known here.
        assert variable in {"PARLEY_AGENT", "PARLEY_DATA_DIR", "PARLEY_TLS_CERTIFICATE_FILE"}
        return
    model = '[model]\nmodel = "m"\nbase_url = "http://x"\n' if "MODEL" in variable else ""
    (told,) = problems(tmp_path, model, {variable: bad[variable]})
    assert told.startswith(f"{ENVIRONMENT[variable].key}: ")
    assert told.endswith(f"(from the environment, {variable})")
    assert bad[variable] not in told or "API_KEY" not in variable


VALUES = st.recursive(
    st.one_of(st.integers(-5, 99), st.booleans(), st.text("ab.:/$`[]", max_size=5), st.floats(0, 9)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([key.leaf for key in KEYS]), inner, max_size=3)
    ),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["server", "database", "auth", "agents", "model", "channel", "log", "turns", "other"]),
    st.dictionaries(
        st.sampled_from([*(key.leaf for key in KEYS), "tokens", "overrides", "offline"]), VALUES, max_size=4
    ),
    max_size=4,
)


@given(document=DOCUMENTS)
def test_whatever_a_file_holds_it_is_understood_or_told(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No document brings the reader down, and what is left of it is a configuration without mistakes."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("".join(f"{name} = {as_toml(value)}\n" for name, value in document.items()), encoding="utf-8")
    config, mistakes = read(environ={}, file=file)
    assert len({problem.key for problem in mistakes}) == len(mistakes)
    assert all(problem.source is not None and problem.source.line for problem in mistakes)
    if not mistakes:
        assert config == read(environ={}, file=file).config
        for section, values in document.items():
            for key in values:
                assert msgspec.to_builtins(getattr(getattr(config, section), key)) is not None


def test_what_is_meant_by_a_name() -> None:
    assert meant(("agents", "overrides", "ask", "tool")) == "agents.overrides.ask.tools"
    assert meant(("auth", "tokens", 3, "usr")) == "auth.tokens[3].user"
    assert meant(("*",)) is None
    assert find_key(("auth", "tokens", 3, "user")) is not None
    assert find_key(("auth", "tokens")) is None

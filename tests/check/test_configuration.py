"""Mistakes in file and environment, as `parley check` tells them."""

from __future__ import annotations

from pathlib import Path

from tests.check.support import context, found, said


def test_nothing_given_is_fine() -> None:
    (finding,) = found("configuration", context())
    assert (finding.level, finding.what) == ("ok", "no file; keys set: none")


def test_how_much_is_set_where(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("[server]\nport = 1\nkeepalive_timeout = 2\n")
    environ = {"PARLEY_MODEL": "m", "OPENAI_API_KEY": "sk-1"}
    (finding,) = found("configuration", context(file, environ, log__level="error"))
    counts = "2 in the file, 1 in the environment, 1 borrowed from OpenAI's variables, 1 on the command line"
    assert finding.what == f"{file}; keys set: {counts}"


def test_all_mistakes_are_errors_that_say_where(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("[server]\nprot = 1\nhost = 2\n")
    assert said(found("configuration", context(file, {"PARLEY_PORT": "x"}))) == [
        "error: server.port: 'x' is not a number -> mend it in the environment, PARLEY_PORT",
        f"error: server.prot: there is no such key; did you mean server.port? -> mend it in {file}, line 2",
        f"error: server.host: expected `str`, got `int` -> mend it in {file}, line 3",
    ]


def test_a_file_that_is_not_there() -> None:
    findings = said(found("configuration", context(Path("/nowhere/parley.toml"))))
    assert findings == ["error: /nowhere/parley.toml: No such file or directory -> mend it there"]


def test_variables_that_nobody_reads() -> None:
    environ = {
        "PARLEY_DATABSE_URL": "postgresql://ada:s3cret@db/x",
        "PARLEY_WHATEVER": "s3cret",
        "PARLEY_URL": "http://x",
        "PARLEY_TOKEN": "x",
        "PARLEY_PORT": "tcp://10.0.0.1:8080",
        "PARLEY_SERVICE_HOST": "10.0.0.1",
    }
    findings = said(found("configuration", context(environ=environ)))
    assert findings == [
        "warning: nothing reads the variable PARLEY_DATABSE_URL -> did you mean PARLEY_DATABASE_URL?",
        "note: nothing reads the variable PARLEY_WHATEVER -> `parley serve --help` lists those that are read",
        (
            "note: PARLEY_PORT=tcp://10.0.0.1:8080 is passed over: Kubernetes sets it for a service named parley"
            " -> set server.port in the file, or enableServiceLinks: false"
        ),
    ]
    assert "s3cret" not in str(findings)

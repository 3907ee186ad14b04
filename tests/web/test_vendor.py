"""What is vendored is exactly what the manifest says, and nothing else; the page loads what it needs at once."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

WEB: Final = Path(__file__).parents[2] / "server" / "web"
VENDOR: Final = WEB / "vendor"


def _libraries() -> list[dict[str, Any]]:
    libraries: list[dict[str, Any]] = json.loads((VENDOR / "manifest.json").read_text())["libraries"]
    assert libraries
    return libraries


def _files() -> list[dict[str, Any]]:
    """Every file that the manifest names, with its hash."""
    found: list[dict[str, Any]] = []
    for library in _libraries():
        found += [library, library["licence"], *(inner["licence"] for inner in library["bundles"])]
    return found


def test_vendored_files_are_what_the_manifest_says() -> None:
    for entry in _files():
        content = (VENDOR / entry["file"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry["sha256"], entry["bytes"]), entry["file"]
    there = {path.name for path in VENDOR.iterdir()}
    assert there == {entry["file"] for entry in _files()} | {"manifest.json", "README.md"}


def test_a_vendored_library_says_its_version_and_comes_with_its_licences() -> None:
    for library in _libraries():
        head = (VENDOR / library["file"]).read_text()[:200]
        assert f"{library['name']} {library['version']}" in head
        assert library["integrity"].startswith("sha512-")
        for licence in (library["licence"], *(inner["licence"] for inner in library["bundles"])):
            assert licence["spdx"] in {"MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Apache-2.0"}
            assert re.search("copyright", (VENDOR / licence["file"]).read_text(), re.IGNORECASE)
        notes = (VENDOR / "README.md").read_text()
        assert f"{library['name']} {library['version']}" in notes


def test_nothing_of_the_page_turns_text_into_markup() -> None:
    """The browser's trusted types would stop it; it is not even tried."""
    sinks = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
        r"|\beval\(|new Function|srcdoc"
    )
    scripts = [*WEB.rglob("*.js")]
    assert len(scripts) > 20
    assert {str(path) for path in scripts if sinks.search(path.read_text())} == set()


def test_the_page_names_every_module_so_that_they_come_at_once() -> None:
    page = (WEB / "index.html").read_text()
    named = set(re.findall(r'<link rel="modulepreload" href="/([^"]+)">', page))
    modules = {str(path.relative_to(WEB)) for path in WEB.rglob("*.js")} - {"console.js", "console/early.js"}
    assert named == modules

"""The Node that runs the tests of the browser library: the one inside playwright, pinned like every other package.

It stands first on the tests' PATH, so that it does not matter whether a machine has a Node, or an old one.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest


def bundled_node() -> Path | None:
    """Return the Node that playwright brought along, or None without playwright."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        return None
    node = Path(spec.origin).parent / "driver" / "node"
    return node if node.is_file() else None


def pytest_configure(config: pytest.Config) -> None:
    """Put that Node first on the PATH of the run."""
    node = bundled_node()
    if node is not None:
        patch = pytest.MonkeyPatch()
        config.add_cleanup(patch.undo)
        patch.setenv("PATH", str(node.parent), prepend=os.pathsep)

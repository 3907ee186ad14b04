"""One made cluster for the tests that only start and kill: a start takes a tenth of what making one takes."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.embedded.processes import embedded, running


@pytest.fixture(scope="session")
def made_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def make() -> None:
        async with running(embedded(path)):
            pass

    path = tmp_path_factory.mktemp("embedded") / "data"
    asyncio.run(make())
    return path


@pytest.fixture
def data_dir(made_data_dir: Path) -> Path:
    """A data directory with a database, not in use. A test must leave it startable."""
    return made_data_dir


@pytest.fixture
def own_data_dir(made_data_dir: Path, tmp_path: Path) -> Path:
    """One to be spoilt."""
    path = tmp_path / "data"
    path.mkdir()
    subprocess.run(["cp", "-a", made_data_dir / "pgdata", path], check=True)
    return path


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A directory that every user can reach, other than pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="parley-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)

"""A real PostgreSQL without installation: the wheel's programs, supervised by this process. See README.md there."""

from storage.embedded.errors import EmbeddedError
from storage.embedded.places import default_data_dir
from storage.embedded.server import EmbeddedPostgres, State

__all__ = ["EmbeddedError", "EmbeddedPostgres", "State", "default_data_dir"]

"""Looking for what stands in the way of a start, before somebody finds out the hard way.

A check is a function that yields findings; `CHECKS` is all of them. None changes anything: no directory is made, no
migration run, no PostgreSQL started. The server itself uses nothing of this.
"""

from typing import Final

from server.check.access import access
from server.check.agents import agents
from server.check.configuration import configuration
from server.check.database import database
from server.check.findings import Finding, Level
from server.check.listener import listener
from server.check.machine import process, python
from server.check.model import model
from server.check.running import PATIENCE, Check, Context, Result, run

__all__ = ["CHECKS", "PATIENCE", "Check", "Context", "Finding", "Level", "Result", "run"]

#: In the order in which people should read the findings.
CHECKS: Final = (
    Check("configuration", "file and environment", frozenset(), configuration),
    Check("python", "Python and packages", frozenset(), python),
    Check("process", "user and open files", frozenset({"channel", "database", "model"}), process),
    Check("listener", "the address to listen on", frozenset({"server"}), listener),
    Check("access", "tokens, and who can read them", frozenset({"server", "auth"}), access),
    Check("database", "PostgreSQL, yours or its own", frozenset({"database"}), database),
    Check("agents", "agents and tools", frozenset({"agents", "model"}), agents),
    Check("model", "the model's endpoint", frozenset({"model", "agents"}), model),
)

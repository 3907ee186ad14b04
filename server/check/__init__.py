"""Looking for what stands in the way of a start, before somebody finds out the hard way.

A check is a function that yields findings; `CHECKS` is all of them. None changes anything: no directory is made, no
migration run, no PostgreSQL started. The server itself uses nothing of this.
"""

from typing import Final

from server.check import access, agents, configuration, database, listener, machine, mcp, model
from server.check.findings import Finding, Level
from server.check.running import GRACE, PATIENCE, Check, Context, Result, run

__all__ = ["CHECKS", "GRACE", "PATIENCE", "Check", "Context", "Finding", "Level", "Result", "run"]

#: In the order in which people should read the findings.
CHECKS: Final = (
    Check("configuration", "file and environment", frozenset(), configuration.find),
    Check("python", "Python and packages", frozenset(), machine.python),
    Check("process", "user and open files", frozenset({"channel", "database", "model"}), machine.process),
    Check("listener", "the address to listen on", frozenset({"server"}), listener.find),
    Check("access", "tokens, certificate, and who can read them", frozenset({"server", "tls", "auth"}), access.find),
    Check("database", "PostgreSQL, yours or its own", frozenset({"database"}), database.find),
    Check("agents", "agents, tools, and who names them", frozenset({"agents", "model"}), agents.find),
    Check("mcp", "servers of tools", frozenset({"mcp"}), mcp.find),
    Check("model", "the model's endpoint", frozenset({"model", "agents"}), model.find),
)

"""Loaded by schemathesis: what it should not take for a failure, each with its reason."""

from __future__ import annotations

import re
from typing import Any

import schemathesis

#: Fields whose values only the server can judge: what it handed out before, and what it was configured with.
_KNOWN_HERE_ALONE = {
    # An agent that there is.
    "unknown_agent": re.compile(r""),
    "invalid": re.compile(
        # A place in a list, as the page before it said; a place in this session's log.
        r"^\?after$|^\?since$|^\$\.cursor$|^\$\.seq$"
        # A model that this server lets projects use.
        r"|^\$\.model$"
    ),
}
#: Rules for which JSON Schema has no words: those of all values, and some of what is in them.
_BEYOND_SCHEMA = re.compile(
    r"NUL character cannot be kept|lone surrogate|at most 64 bits|must be finite"
    r"|names a tool twice|not a UUID|U\+0000"
)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether it is a failure: a request that fits its schema may be wrong all the same."""
    if failure.code != "ST202" or response.status_code not in {400, 422}:
        return True
    problem = response.json()
    reason = _KNOWN_HERE_ALONE.get(problem["code"])
    known = reason is not None and reason.search(problem.get("path", "")) is not None
    return not (known or _BEYOND_SCHEMA.search(problem["detail"]))

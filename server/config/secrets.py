"""What of a configuration people may be shown. Hiding too much is a nuisance, hiding too little is a leak."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["HIDDEN", "hidden", "hidden_url", "holds_secret"]

HIDDEN: Final = "***"

#: Names of keys whose texts are secrets. A digest counts: whoever has it can try passwords in peace.
_NAME: Final = re.compile(
    r"(?:^|[_-])(?:token|key|secret|password|passwd|credentials?|auth|authorization)(?:_sha256)?$"
)
#: Tables all of whose texts are secrets, as nobody knows what an endpoint wants in there.
_TABLES: Final = re.compile(r"model\.extra_headers\.|mcp\.[^.]+\.(?:env|headers)\.")
#: The password of a URL goes up to the last `@`, as those who forget to escape one would have it.
_PASSWORD: Final = re.compile(r"(?<=://)([^\s:/@]*):.*@", re.DOTALL)
_PARAMETER: Final = re.compile(r"([^&?#=]+)=([^&#]*)")
#: Parameters of URLs whose values tell nothing; of all others the value is hidden.
_HARMLESS: Final = frozenset(
    {
        "api-version",
        "application_name",
        "connect_timeout",
        "dbname",
        "host",
        "options",
        "port",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
        "user",
    }
)


def hidden(key: str, value: Any) -> Any:
    """The value of a dotted key as it may be shown: secrets are `***`, URLs have lost theirs."""
    match value:
        case str():
            # The environment may hold bytes that are no text.
            text = value.encode("utf-8", "backslashreplace").decode()
            return HIDDEN if text and _is_secret(key) else hidden_url(text)
        case list() | tuple():
            return [hidden(key, item) for item in value]
        case dict():
            return {name: hidden(f"{key}.{name}", item) for name, item in value.items()}
        case _:
            return value


def hidden_url(text: str) -> str:
    """The text without the password and the parameters of the URL that it is, if it is one."""
    if "://" not in text:
        return text
    address, mark, query = _PASSWORD.sub(rf"\1:{HIDDEN}@", text).partition("?")
    return address + mark + _PARAMETER.sub(_parameter, query)


def holds_secret(key: str, value: Any) -> bool:
    """Whether something of the value is hidden, so that others must not read it."""
    return bool(hidden(key, value) != (list(value) if isinstance(value, tuple) else value))


def _parameter(found: re.Match[str]) -> str:
    return found[0] if found[1].lower() in _HARMLESS else f"{found[1]}={HIDDEN}"


def _is_secret(key: str) -> bool:
    return bool(_TABLES.match(key)) or bool(_NAME.search(key.rpartition(".")[2].strip('"').lower()))

"""Who gets in, and who can read what keeps the others out?"""

from __future__ import annotations

import math
import re
import stat
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings, in_thread
from server.config import Config, ConfigError, is_loopback
from server.config.shown import entries
from server.tls.certificates import SOON
from server.tls.loading import Certificate, load

__all__ = ["find"]

#: Bits; a random token of 16 characters of base64 has 96, and what people make up has less.
_LEAST_BITS: Final = 56.0
_MADE_UP: Final = re.compile(r"change|secret|password|passwd|example|token|1234|abcd|qwer|test", re.IGNORECASE)
#: So many users are named.
_SHOWN: Final = 8
_ASK_FOR_ANOTHER: Final = "ask for another"
_MAKE_ONE: Final = "make one with: openssl rand -hex 32"


async def find(context: Context) -> Findings:
    """Tokens, and from where the server can be reached."""
    config = context.config
    local = is_loopback(config.server.host)
    users = {entry.user for entry in config.auth.tokens}
    if users:
        yield ok(f"tokens are asked for; there are {len(config.auth.tokens)}, of {', '.join(sorted(users)[:_SHOWN])}")
    else:
        yield ok("no tokens: whoever is on this machine gets in, and nobody else")
    for finding in _weak(config):
        yield finding
    if config.tls.enabled:
        for finding in await in_thread(lambda: list(_certificate(config))):
            yield finding
    elif not local:
        yield note(
            f"{config.server.host} is reached from other machines without encryption",
            "name a certificate in [tls], or put a proxy with TLS before it; or whoever is on the way reads the tokens",
        )
    if not local and not config.server.allowed_hosts:
        yield note(
            "it answers to its addresses only, not to a name",
            "add the names under which it is reached to server.allowed_hosts",
        )
    for finding in await in_thread(lambda: list(_readable(config))):
        yield finding


def _certificate(config: Config) -> Iterator[Finding]:
    try:
        certificate = load(config).certificate
    except ConfigError as failure:
        yield error(str(failure), "the server does not start like this")
        return
    if certificate is None:
        yield warning("the certificate is one that clients refuse: not made for servers?", _ASK_FOR_ANOTHER)
        return
    yield from _dates(certificate, datetime.now(UTC))
    missing = [name for name in config.server.allowed_hosts if not _covers(certificate, name)]
    if missing:
        yield warning(f"the certificate is not for {', '.join(missing)}", _ASK_FOR_ANOTHER)


def _dates(certificate: Certificate, now: datetime) -> Iterator[Finding]:
    day = f"{certificate.ends:%Y-%m-%d}"
    if now >= certificate.ends:
        yield warning(f"the certificate has expired on {day}", "renew it; the server takes it up by itself")
    elif now < certificate.begins:
        yield warning(f"the certificate is valid from {certificate.begins:%Y-%m-%d} on only", "wait, or set the clock")
    elif now >= certificate.ends - SOON:
        yield warning(f"the certificate expires on {day}", "see why it was not renewed")
    else:
        yield ok(f"HTTPS, for {', '.join(certificate.names[:_SHOWN])} until {day}")


def _covers(certificate: Certificate, name: str) -> bool:
    wild = f"*.{name.partition('.')[2]}"
    return any(each.lower() in {name.lower(), wild.lower()} for each in certificate.names)


def _weak(config: Config) -> Iterator[Finding]:
    for number, entry in enumerate(config.auth.tokens):
        if entry.token is not None and (_bits(entry.token) < _LEAST_BITS or _MADE_UP.search(entry.token)):
            yield warning(f"auth.tokens[{number}]: the token of {entry.user} can be guessed", _MAKE_ONE)


def _bits(text: str) -> float:
    """How much a text surprises, going by how often each of its characters is in it."""
    counts = Counter(text)
    return -sum(count * math.log2(count / len(text)) for count in counts.values())


def _readable(config: Config) -> Iterator[Finding]:
    """Secrets where others on this machine can read them: in a file that is open to all, or among the processes."""
    secret = [
        entry for entry in entries(config) if "***" in str(entry.value) and not entry.name.endswith("token_sha256")
    ]
    files = {entry.source.name: entry for entry in secret if entry.source.kind == "file" and entry.source.name}
    for name, entry in files.items():
        if _mode(name) & stat.S_IROTH:
            yield warning(
                f"{name} holds a secret ({entry.name}), and everybody on this machine can read it", f"chmod 600 {name}"
            )
    for entry in secret:
        if entry.source.kind == "flag":
            yield warning(
                f"{entry.name} holds a secret, and everybody on this machine sees the command line",
                "set it in the environment or in the file",
            )


def _mode(name: str) -> int:
    try:
        return Path(name).stat().st_mode
    except OSError:
        # It went away since it was read; then nobody reads it.
        return 0

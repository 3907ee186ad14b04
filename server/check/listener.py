"""Can the server listen where it is to, and who does already?"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

import aiohttp
import msgspec

from server.check.findings import Finding, error, note, ok
from server.check.running import Context, Findings, in_thread

__all__ = ["find"]

#: Seconds for the answer of whoever is there.
_WAIT: Final = 2.0
_MOST_BYTES: Final = 64 << 10
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


async def find(context: Context) -> Findings:
    """The address: known, allowed, free."""
    settings = context.config.server
    where = f"{settings.host} port {settings.port}"
    try:
        found = await in_thread(
            lambda: socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )
    except OSError as failure:
        yield error(f"{settings.host} leads nowhere: {failure.strerror or failure}", "check server.host")
        return
    for family, address in sorted({(family, address) for family, *_, address in found}):
        number = _refused(family, address)
        if number:
            yield await _why(number, where, _url(str(address[0]), settings.port, secure=context.config.tls.enabled))
            return
    yield ok(f"{where} is free" if settings.port else f"a free port of {settings.host} will be taken")


def _refused(family: int, address: Any) -> int:
    """Why the address cannot be had, as an errno, or 0. It is bound for a moment, and nobody can connect to it."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as failure:
        return failure.errno or errno.EINVAL
    return 0


async def _why(number: int, where: str, url: str) -> Finding:
    match number:
        case errno.EADDRINUSE:
            version = await _parley_at(url)
            if version is None:
                return error(f"{where} is in use by another program", "stop it, or choose another port with --port")
            return note(f"a Parley {version} listens on {where}", "to start a second one, choose another --port")
        case errno.EACCES | errno.EPERM:
            return error(
                f"{where} may not be used by this user", "choose a port above 1023: those below are the administrator's"
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return error(f"{where} is not an address of this machine", "check server.host; 0.0.0.0 means all addresses")
        case _:
            return error(f"{where} cannot be listened on: {errno.errorcode.get(number, number)}", "check server.host")


def _url(host: str, port: int, *, secure: bool) -> str:
    host = _ANYWHERE.get(host, host)
    return f"http{'s' if secure else ''}://{f'[{host}]' if ':' in host else host}:{port}/health"


async def _parley_at(url: str) -> str | None:
    """The version of the Parley that answers there, whatever its certificate; None where somebody else does."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_WAIT)) as http,
            http.get(url, allow_redirects=False, ssl=False) as response,
        ):
            health = msgspec.json.decode(await response.content.read(_MOST_BYTES))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    match health:
        case {"service": "parley", "version": str(version)}:
            return version
        case _:
            return None

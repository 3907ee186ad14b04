"""From where a request may come: the `Host` it was sent to and the `Origin` of the page that sent it.

Without these checks any web page could drive a server on the visitor's own machine: by a plain cross-site request or
WebSocket, which carries the page's `Origin`; or after DNS rebinding, where the page's own name points at 127.0.0.1 and
only `Host` still tells. So both are checked on every request, whatever its method and whatever the address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs, web

from protocol.errors import ErrorCode, ParleyError
from server.config import ServerSettings

__all__ = ["Gatekeeper", "foreign_origin", "is_secure", "own_origin"]

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

_EXPOSED: Final = "X-Request-ID, Retry-After, Allow, WWW-Authenticate"
_METHODS: Final = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-ID"


class Gatekeeper:
    """Decides by `Host` and `Origin`, and answers browsers' questions about it (CORS, in the Fetch standard)."""

    def __init__(self, settings: ServerSettings) -> None:
        # 0.0.0.0 and :: mean all addresses, and are nobody's name; some browsers take them for this machine.
        own = () if settings.host in {"0.0.0.0", "::"} else (settings.host,)  # noqa: S104 - compared, not bound
        names = {name.lower().strip("[]") for name in (*own, *settings.allowed_hosts)}
        self._hosts = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._origins = frozenset(origin.lower() for origin in settings.allowed_origins)

    def check(self, request: web.Request) -> None:
        """Raise ParleyError HOST_REFUSED or ORIGIN_REFUSED for a request that is none of this server's business."""
        hosts = request.headers.getall(hdrs.HOST, [])
        if len(hosts) != 1 or not self._knows(hosts[0], request):
            raise ParleyError(
                ErrorCode.HOST_REFUSED,
                f"this server is not known as {_joined(hosts)}; names other than loopback ones are configured in "
                "server.allowed_hosts",
            )
        if own_origin(request) is not False:
            return
        origins = request.headers.getall(hdrs.ORIGIN)
        if len(origins) != 1 or not self.allows_cross_origin(request):
            raise ParleyError(
                ErrorCode.ORIGIN_REFUSED,
                f"pages of {_joined(origins)} may not use this server; other origins are configured in "
                "server.allowed_origins",
            )

    def allows_cross_origin(self, request: web.Request) -> bool:
        """Whether the request comes from a page of one of the configured origins."""
        return request.headers.get(hdrs.ORIGIN, "").lower() in self._origins

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a CORS preflight of a configured origin; None for every other request."""
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if request.method != hdrs.METH_OPTIONS or asked is None or not self.allows_cross_origin(request):
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            },
        )

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let a configured origin's page read the response, streams included: a handler of `on_response_prepare`."""
        if self._origins:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self.allows_cross_origin(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    def _knows(self, host: str, request: web.Request) -> bool:
        name = _name_of(host)
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        if any(name.endswith(suffix) for suffix in self._suffixes):
            return True
        address = _address(name)
        # An address is no name that could be pointed elsewhere; but only those that lead here by themselves.
        return address is not None and (address.is_loopback or address == _local_address(request))


def _name_of(host: str) -> str:
    """The host of `host[:port]` or `[v6][:port]`, in lower case and without a final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _local_address(request: web.Request) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Our own end of the connection."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return _address(str(name[0]).partition("%")[0]) if isinstance(name, tuple) else None


def own_origin(request: web.Request) -> bool | None:
    """Whether a request comes from a page of our own, as its `Origin` says; None where it says nothing.

    Browsers say nothing of GET requests to where their page is from, and programs say nothing ever.
    """
    origins = request.headers.getall(hdrs.ORIGIN, [])
    if not origins:
        return None
    return len(origins) == 1 and _is_same(origins[0], request.headers.get(hdrs.HOST, ""), request.secure)


def foreign_origin(request: web.Request) -> str | None:
    """The origin of the page that sent a request, in lower case; None for pages of our own and for programs."""
    return None if own_origin(request) is not False else request.headers[hdrs.ORIGIN].lower()


def is_secure(request: web.Request) -> bool:
    """Whether the browser, if it is one, speaks TLS: with us, or with a proxy before us, as its page's origin tells."""
    return request.secure or (own_origin(request) is True and request.headers[hdrs.ORIGIN].lower().startswith("https:"))


def _is_same(origin: str, host: str, secure: bool) -> bool:
    """Whether the authority of an origin is `host`.

    Where we speak TLS ourselves its scheme has to be `https`: a page that came in the clear may be anybody's. Otherwise
    it is not compared: behind a proxy that ends TLS it is `https` for the browser and `http` for us.
    """
    scheme, separator, authority = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    if not separator or default is None or (secure and scheme != "https"):
        return False
    return authority.removesuffix(default) == host.lower().removesuffix(default)


def _joined(values: Iterable[str]) -> str:
    # Cut: this goes into an answer and a log line.
    return ", ".join(repr(value[:200]) for value in values) or "nothing (there is no such header)"

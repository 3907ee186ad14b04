"""The way to an endpoint: through which proxy, and what to say where it cannot be gone."""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp

from server.agents.model.errors import ModelError, Where, invalid_answer, shown
from server.agents.model.settings import ModelSettings

__all__ = ["proxy_of", "unreachable"]

_PROXIES: Final = ("http", "https")


def proxy_of(settings: ModelSettings) -> str | None:
    """The proxy that the environment names (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``); none to this machine itself.

    Read here, as aiohttp's own way also reads ``~/.netrc``, whose passwords would collide with the key. Raises
    ModelError for one that cannot be used; to go around it would show the key to a network that is not meant to see it.
    """
    host = settings.host
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    proxies = getproxies_environment()
    proxy = proxies.get(settings.url.partition(":")[0]) or proxies.get("all")
    if not proxy or host == "localhost" or proxy_bypass(host):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    with suppress(ValueError):
        parts = urlsplit(proxy)
        if parts.scheme in _PROXIES and parts.hostname and parts.port != 0:
            return proxy
    # Not quoted, as it may hold a password.
    text = f"the way to {settings.origin} leads through a proxy that is no HTTP proxy; check HTTPS_PROXY and NO_PROXY"
    raise ModelError("model_unreachable", text)


def unreachable(error: Exception, where: Where, *, through_proxy: bool) -> ModelError:
    """Why there is no connection, or none any more, or nothing on it that is HTTP."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | ssl.SSLError):
        reason = shown(getattr(error, "verify_message", "") or str(error), where)
        text = f"no trusted connection to {where.origin}: {reason}; check its certificate (SSL_CERT_FILE), or the URL"
        return ModelError("model_tls_failed", text)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        text = f"the proxy refuses the way to {where.origin} ({error.status}); check HTTPS_PROXY and NO_PROXY"
        return ModelError("model_unreachable", text)
    if isinstance(error, aiohttp.InvalidURL):
        return ModelError("model_unreachable", f"{where.origin} is not a URL; check model.base_url")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = shown(error.os_error.strerror or type(error.os_error).__name__, where)
        what = f"{where.origin} ({reason}); does it run, and is model.base_url right?"
        if through_proxy:
            what = f"the proxy on the way to {where.origin} ({reason}); check HTTPS_PROXY and NO_PROXY"
        return ModelError("model_unreachable", f"no connection to {what}", retryable=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return invalid_answer(where, shown(error.message, where))
    text = f"{where.origin} closed the connection without an answer ({type(error).__name__})"
    return ModelError("model_unavailable", text, retryable=True)

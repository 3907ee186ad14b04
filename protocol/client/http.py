"""Requests to one server: its address, a token, and answers as types."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from protocol.client.settings import Timings
from protocol.client.trouble import LOST, ViolationError, refusal, unreachable
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias

__all__ = ["Http", "Token", "address_of", "path_of"]

T = TypeVar("T")

#: A token, or a function (also an async one) that returns the newest: it is asked for each connection and request.
Token: TypeAlias = str | Callable[[], str | None] | Callable[[], Awaitable[str | None]]

_JSON: Final = {"Content-Type": "application/json"}
_UNKNOWN_TOKEN: Final = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED})


def address_of(url: str) -> str:
    """A server's address, fit to have paths put behind it. Raises ValueError that names the address and the rule."""
    try:
        parts = urlsplit(url)
        rule = _broken_rule(parts.scheme, parts.hostname, parts.query + parts.fragment)
        secret = parts.username is not None
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no server's address: {error}") from None
    if secret:
        # Not shown: it may hold a password.
        raise ValueError("a server's address has neither a name nor a password in it; give a token instead")
    if rule is not None:
        raise ValueError(f"{url!r} is no server's address: {rule}")
    return url.rstrip("/")


def _broken_rule(scheme: str, host: str | None, rest: str) -> str | None:
    if scheme not in {"http", "https"}:
        return "it has to begin with http:// or https://"
    if not host:
        return "it has to name a host, as http://127.0.0.1:8080 does"
    return "it has to end before ? and #" if rest else None


def path_of(session: object, leaf: str = "") -> str:
    """The path of a session, or of something under it. Raises ParleyError(NOT_FOUND) for what can be no name."""
    name = str(session)
    try:
        parse_alias(name)
    except ParleyError:
        # As the server would say; but an empty name would be another address.
        raise ParleyError(ErrorCode.NOT_FOUND, f"there is no session of the name {name!r}") from None
    return f"/sessions/{quote(name, safe='')}" + (f"/{leaf}" if leaf else "")


async def _stay(session: object, context: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    """Follow nobody: a token is for one server, and a POST that is redirected becomes a GET."""
    answer = redirect.response
    answer.close()
    raise refusal(answer.status, "", b"", answer.headers.get("Location"))


class Http:
    """Requests to one server. Open before use, close after it. Raises ValueError for an unusable address."""

    def __init__(self, url: str, token: Token | None, timings: Timings) -> None:
        self.url = address_of(url)
        self.timings = timings
        self._token = token
        self._used: str | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._session is not None and not self._session.closed

    @property
    def session(self) -> aiohttp.ClientSession:
        """For streams. Raises ConnectionError when it is not open."""
        if self._session is None or self._session.closed:
            raise ConnectionError("the client is not connected; use it in `async with`")
        return self._session

    def open(self) -> None:
        """Get ready; nothing is sent yet."""
        # A stream has no total time; silence is what ends it.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.timings.opening)
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_stay)
        self._session = aiohttp.ClientSession(timeout=timeout, trace_configs=[trace])

    async def close(self) -> None:
        """Close all connections. May be called again."""
        if self._session is not None:
            await self._session.close()

    def address(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        """The whole address of a path. It is sent as it is: a session may be called `..`."""
        return URL(self.url + path + (f"?{urlencode(query)}" if query else ""), encoded=True)

    async def headers(self) -> dict[str, str]:
        """Who is asking. Raises what the token's function raises, and ValueError when its token cannot be sent."""
        self._used = await self._newest()
        return {} if not self._used else {"Authorization": f"Bearer {self._used}"}

    async def renewed(self) -> bool:
        """Whether there is a newer token than the one that was used last."""
        return callable(self._token) and await self._newest() not in {self._used, None}

    async def _newest(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        # Files that hold a token end in a newline.
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("a token has visible ASCII characters only, as it is sent in a header")
        return token or None

    async def request(
        self, method: str, path: str, kind: type[T], *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> T:
        """Ask for something and read the answer as `kind`; an empty one is null.

        `body` is sent as JSON, or as it is when it is bytes. A refused token is replaced once, if a newer one is to be
        had. Raises ParleyError when the server refuses, ConnectionError in words when nobody answers.
        """
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        address = self.address(path, query)
        try:
            content = await self._exchange(method, address, data)
        except ParleyError as error:
            if error.code not in _UNKNOWN_TOKEN or not await self.renewed():
                raise
            content = await self._exchange(method, address, data)
        try:
            return msgspec.json.decode(content or b"null", type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ViolationError(f"{self.url} does not answer as a Parley server does: {error}") from error

    async def _exchange(self, method: str, address: URL, data: bytes | None) -> bytes:
        headers = await self.headers() | (_JSON if data is not None else {})
        wait = aiohttp.ClientTimeout(total=self.timings.answer, sock_connect=self.timings.opening)
        session = self.session
        try:
            async with session.request(method, address, data=data, headers=headers, timeout=wait) as answer:
                content = await self.read(answer)
                if not 200 <= answer.status < 300:
                    raise self.refused(answer, content)
                return content
        except LOST as error:
            raise unreachable(self.url, error, self.timings.answer) from error

    async def read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body of an answer. Raises ViolationError when it does not end in time."""
        content = bytearray()
        async for piece in answer.content.iter_any():
            content += piece
            if len(content) > self.timings.largest_event:
                raise ViolationError(f"an answer of {self.url} has more than {self.timings.largest_event} bytes")
        return bytes(content)

    def refused(self, answer: aiohttp.ClientResponse, content: bytes) -> ParleyError:
        """What an answer that is none means."""
        return refusal(answer.status, answer.content_type, content)

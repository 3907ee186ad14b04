"""One server over HTTP: its address, a token, and what its answers mean."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from protocol.client.settings import Timings
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias

__all__ = ["LOST", "RETRYABLE", "Http", "Token", "address_of", "code_of", "path_of", "refusal", "unreachable"]

T = TypeVar("T")

#: A token, or a function (also an async one) that returns the newest: it is asked for every connection and request.
Token: TypeAlias = str | Callable[[], str | None] | Callable[[], Awaitable[str | None]]

#: What a broken, missing or silent connection raises.
LOST: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, OSError)
#: What may be tried again as it is.
RETRYABLE: Final = frozenset(
    {
        ErrorCode.INTERNAL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.SHUTDOWN,
        ErrorCode.SLOW_CONSUMER,
        ErrorCode.STALE,
        ErrorCode.UNAVAILABLE,
    }
)
_RETRYABLE_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_FINAL_STATUS: Final = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.SESSION_GONE,
}
_JSON: Final = {"Content-Type": "application/json"}


def address_of(url: str) -> str:
    """A server's address, fit to have paths put behind it. Raises ValueError that names the address and the rule."""
    try:
        parts = urlsplit(url)
        rule = _broken_rule(parts.scheme, parts.hostname, parts.query + parts.fragment)
        if parts.username is not None:
            # Not shown: it may hold a password.
            raise ValueError("a server's address holds no name and password; give a token instead")
        _ = parts.port
    except ValueError as error:
        if "a server's address holds" in str(error):
            raise
        rule = str(error)
    if rule is not None:
        raise ValueError(f"{url!r} is no server's address: {rule}")
    return url.rstrip("/")


def _broken_rule(scheme: str, host: str | None, rest: str) -> str | None:
    if scheme not in {"http", "https"}:
        return "it begins with http:// or https://"
    if not host:
        return "it names a host, as in http://127.0.0.1:8080"
    return "it has neither ? nor #" if rest else None


def path_of(session: object, leaf: str = "") -> str:
    """The path of a session, or of something under it. Raises ParleyError(NOT_FOUND) for what can be no name."""
    name = str(session)
    try:
        parse_alias(name)
    except ParleyError:
        # As the server says it; but sent, an empty name would mean another address.
        raise ParleyError(ErrorCode.NOT_FOUND, f"there is no session of this name: {name!r}") from None
    return f"/sessions/{quote(name, safe='')}" + (f"/{leaf}" if leaf else "")


class Http:
    """Requests to one server. Open before use, close after it."""

    def __init__(self, url: str, token: Token | None, timings: Timings) -> None:
        self.url = address_of(url)
        self._token = token
        self._timings = timings
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._session is not None and not self._session.closed

    @property
    def session(self) -> aiohttp.ClientSession:
        """For streams. Raises ConnectionError when it is not open."""
        if self._session is None or self._session.closed:
            raise ConnectionError("the client is not connected")
        return self._session

    def open(self) -> None:
        """Get ready; nothing is sent yet."""
        # A stream has no total time; silence is what ends it.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timings.opening)
        self._session = aiohttp.ClientSession(timeout=timeout)

    async def close(self) -> None:
        """Close all connections. May be called again."""
        if self._session is not None:
            await self._session.close()

    def address(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        """The whole address of a path; it is sent as it is, dots included."""
        return URL(self.url + path + (f"?{urlencode(query)}" if query else ""), encoded=True)

    async def headers(self) -> dict[str, str]:
        """Who is asking."""
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        return {} if not token else {"Authorization": f"Bearer {token.strip()}"}

    async def request(
        self, method: str, path: str, kind: type[T], *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> T:
        """Ask for something and read the answer as `kind` (`type(None)`: there is none).

        Raises ParleyError when the server refuses, ConnectionError in words when nobody answers.
        """
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = await self.headers() | (_JSON if data is not None else {})
        wait = aiohttp.ClientTimeout(total=self._timings.answer, sock_connect=self._timings.opening)
        try:
            async with self.session.request(
                method, self.address(path, query), data=data, headers=headers, timeout=wait
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise await refusal(answer)
                content = await answer.read()
        except LOST as error:
            raise unreachable(self.url, error, self._timings.answer) from error
        return _decoded(content, kind, self.url)


def _decoded(content: bytes, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(content or b"null", type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        message = f"{url} does not answer as a Parley server does: {error}"
        raise ParleyError(ErrorCode.PROTOCOL_ERROR, message) from error


async def refusal(response: aiohttp.ClientResponse) -> ParleyError:
    """What a response other than the wanted one means, in the server's words where they are there."""
    code = code_of(response.status)
    message, path, wait, about = f"the server answered {response.status}", None, None, None
    if response.content_type == "application/problem+json":
        problem = msgspec.json.decode(await response.read(), type=_Problem)
        code = ErrorCode.of(problem.code) or code
        message, path, wait, about = problem.detail, problem.path, problem.retry_after, problem.id
    return ParleyError(code, message, path=path, retry_after=wait, id=about)


class _Problem(Struct):
    code: str = ""
    detail: str = ""
    path: str | None = None
    retry_after: float | None = None
    id: str | None = None


def code_of(status: int) -> ErrorCode:
    """The code that fits a status which came without one."""
    if status in _RETRYABLE_STATUS:
        return ErrorCode.RATE_LIMITED if status == 429 else ErrorCode.UNAVAILABLE
    return _FINAL_STATUS.get(status, ErrorCode.PROTOCOL_ERROR)


def unreachable(url: str, error: BaseException | None, patience: float) -> ConnectionError:
    """That nobody answers, in words for a person: who, and why."""
    return ConnectionError(f"{url} does not answer: {_reason(error, patience)}")


def _reason(error: BaseException | None, patience: float) -> str:
    match error:
        case None | TimeoutError():
            return f"nothing came within {patience:g} s"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"its certificate is not trusted, or not its own: {error}"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, socket.gaierror):
            return f"there is no host named {error.host!r}"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return f"nothing listens on port {error.port}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer"
        case _:
            return str(error) or type(error).__name__

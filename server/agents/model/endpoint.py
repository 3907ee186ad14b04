"""The HTTP side: one session for all agents, a request, and its answer as a stream of events."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Final

import aiohttp
import msgspec

from protocol.errors import ParleyError
from server.agents.model.chunks import Events
from server.agents.model.errors import ModelError, Where, invalid_answer, read_refusal, refused, shown
from server.agents.model.fitting import Rooms
from server.agents.model.manners import Manners
from server.agents.model.reach import proxy_of, unreachable
from server.agents.model.retry import read_retry_after
from server.agents.model.settings import ModelSettings
from server.version import VERSION

__all__ = ["Answer", "Endpoint"]

_MAX_EVENT_BYTES: Final = 4 << 20
_MAX_ERROR_BYTES: Final = 64 << 10
_STREAMS: Final = frozenset({"text/event-stream", "text/plain", "application/octet-stream"})
_JSON: Final = "application/json"
#: Seconds for the end of a body whose last event is there already, so that its connection can be used again.
_LINGER: Final = 0.25


class Endpoint:
    """A model endpoint. The HTTP session is made with the first request, on the loop that runs then.

    At most ``max_connections`` requests are under way; others wait their turn, which no time-out of theirs counts.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.manners: dict[str, Manners] = {}
        """How each model wants to be asked, once it is known."""
        self.rooms = Rooms()
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._stopped = False

    def where(self, model: str) -> Where:
        """For errors of requests for this model."""
        settings = self.settings
        return Where(settings.origin, model, settings.api_key is not None, settings.secrets)

    def manners_of(self, model: str) -> Manners:
        """How this model wants to be asked, as far as it is known."""
        return self.manners.get(model) or Manners(reasoning=self.settings.reasoning_field)

    async def stop(self) -> None:
        """Close all connections; requests that run fail."""
        self._stopped = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def ask(self, body: dict[str, Any], now: Callable[[], datetime]) -> AsyncIterator[Answer]:
        """Post a request. The answer's connection is closed on leaving, unless the answer was read to its end.

        Raises ModelError for what is refused, and when the endpoint cannot be reached or does not answer in time.
        """
        where = self.where(str(body["model"]))
        async with self._slots:
            # One deadline for the answer's head and its first token.
            deadline = asyncio.get_running_loop().time() + self.settings.timeout_first_token
            response = await self._post(body, where, deadline)
            try:
                if response.status >= 300:
                    raise await self._refusal(response, where, now)
                yield Answer(response, where, self.settings, deadline)
            finally:
                # Of a connection whose body was read to its end this takes nothing away.
                response.close()

    async def _post(self, body: dict[str, Any], where: Where, deadline: float) -> aiohttp.ClientResponse:
        settings, proxy = self.settings, proxy_of(self.settings)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._open_session().post(
                    settings.url,
                    data=msgspec.json.encode(body),
                    headers=self._headers(),
                    # A redirected POST would become a GET, and take the key elsewhere.
                    allow_redirects=False,
                    proxy=proxy,
                )
        except aiohttp.ServerTimeoutError:
            text = f"no connection to {where.origin} within {settings.timeout_connect:g} s; is model.base_url right?"
            raise ModelError("model_timeout", text, retryable=True) from None
        except TimeoutError:
            raise _late(where, settings) from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise unreachable(error, where, through_proxy=proxy is not None) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._stopped:
            raise ModelError("model_unavailable", "the server is shutting down", retryable=True, again=False)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.settings.timeout_connect),
                # Whatever cookies a gateway sets would tie all users together.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": _JSON,
            "Accept": "text/event-stream",
            # A compressing proxy holds a stream back until it has enough to compress.
            "Accept-Encoding": "identity",
            "User-Agent": f"parley-server/{VERSION}",
        }
        if self.settings.api_key is not None:
            headers["Authorization"] = f"Bearer {self.settings.api_key}"
        given = {name.title(): value for name, value in self.settings.extra_headers.items()}
        return {**headers, **given}

    async def _refusal(self, response: aiohttp.ClientResponse, where: Where, now: Callable[[], datetime]) -> ModelError:
        """What a status that is no success means; its body is read as far as it is there in time."""
        body = bytearray()
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(min(self.settings.timeout_idle, self.settings.timeout_connect)):
                while len(body) < _MAX_ERROR_BYTES and (piece := await response.content.read(_MAX_ERROR_BYTES)):
                    body += piece
        refusal = read_refusal(bytes(body[:_MAX_ERROR_BYTES]), response.status)
        return refused(refusal, where, read_retry_after(response.headers, now()))


class Answer:
    """An answer that is being read."""

    def __init__(
        self, response: aiohttp.ClientResponse, where: Where, settings: ModelSettings, deadline: float
    ) -> None:
        """Raises ModelError for a body that is no stream of events and no JSON."""
        self._response = response
        self._where = where
        self._settings = settings
        self._deadline = deadline
        self._events = Events(_MAX_EVENT_BYTES)
        self._ended = False
        kind = response.content_type
        self._whole = kind == _JSON or kind.endswith("+json")
        if not self._whole and kind not in _STREAMS:
            what = "an HTML page" if kind == "text/html" else f"Content-Type {shown(kind, where)[:80]!r}"
            raise invalid_answer(where, f"it sent {what}")

    async def read(self, *, began: bool) -> list[str] | None:
        """The data of the next events, possibly none; None at the end.

        ``began``: the first token was seen, so that any byte within ``timeout_idle`` is enough. Raises ModelError.
        """
        if self._ended:
            return None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.timeout_idle if began else self._deadline
        try:
            async with asyncio.timeout_at(deadline):
                if self._whole:
                    return await self._read_whole()
                data = await self._response.content.readany()
            if data:
                return self._events.feed(data)
            self._ended = True
            return self._events.end()
        except TimeoutError:
            raise _late(self._where, self._settings, began=began) from None
        except (aiohttp.ClientError, OSError):
            text = f"the connection to {self._where.origin} broke in the middle of the answer"
            raise ModelError("model_stream_cut", text, retryable=True) from None
        except ParleyError:
            raise self._too_large() from None

    async def finish(self) -> None:
        """Read to the body's end if it is near, as only then the connection can be used again."""
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_LINGER):
                while await self._response.content.readany():
                    pass

    async def _read_whole(self) -> list[str]:
        """From an endpoint that does not stream: the whole answer as if it were the only event."""
        body = bytearray()
        while piece := await self._response.content.readany():
            body += piece
            if len(body) > _MAX_EVENT_BYTES:
                raise self._too_large()
        self._ended = True
        return [body.decode("utf-8", "replace")]

    def _too_large(self) -> ModelError:
        return invalid_answer(self._where, f"an event has more than {_MAX_EVENT_BYTES >> 20} MiB")


def _late(where: Where, settings: ModelSettings, *, began: bool = False) -> ModelError:
    """An answer did not come, or not on. What took that long is not asked for a second time by itself."""
    text = f"{where.origin} sent nothing of an answer within {settings.timeout_first_token:g} s"
    advice = "try again, or raise model.timeout_first_token"
    if began:
        text = f"{where.origin} fell silent in the middle of the answer for {settings.timeout_idle:g} s"
        advice = "try again, or raise model.timeout_idle"
    return ModelError("model_timeout", f"{text}; {advice}", retryable=True, again=False)

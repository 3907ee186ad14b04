"""The ``[model]`` section of the configuration, as a type. It imports nothing that opens sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from msgspec import Meta, Struct

__all__ = ["OPENAI_URL", "ModelSettings"]

OPENAI_URL: Final = "https://api.openai.com/v1"
"""Where a key belongs for which no ``base_url`` is given."""

Seconds = Annotated[float, Meta(gt=0, le=3600)]

# What RFC 9110 (section 5.6.2) allows in the name of a header, and the visible ASCII that it wants in a value.
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_KEY: Final = re.compile(r"[\x21-\x7e]+")
_SHORTEST_SECRET: Final = 7
_SECRET_NAME: Final = re.compile(r"key|token|secret|password|auth|credential", re.IGNORECASE)
_PATH: Final = "/chat/completions"
_OURS: Final = frozenset({"messages", "model", "stream", "tools"})


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model answers, and where it is asked; without `model` no model is used at all. Times are in seconds."""

    #: The model, as the endpoint calls it.
    model: Annotated[str, Meta(min_length=1, max_length=256, examples=["qwen3"])] | None = None
    #: The part of the endpoint's URL before `/chat/completions`; when missing, and `api_key` is given, it is OpenAI's.
    base_url: Annotated[str, Meta(examples=["http://127.0.0.1:11434/v1"])] | None = None
    #: What the endpoint knows us by, sent as a bearer token.
    api_key: str | None = None
    #: Bounds connecting and the TLS handshake.
    timeout_connect: Seconds = 10.0
    #: Bounds the time from the request to the first piece of the answer; a local server may have to load the model in
    #: it.
    timeout_first_token: Seconds = 180.0
    #: Bounds the time without a byte from then on.
    timeout_idle: Seconds = 60.0
    #: Further tries of a request before its first token; later there are none.
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 2
    #: Bounds the requests at a time; more wait.
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 100
    #: How freely the model chooses its words; when missing, the endpoint decides.
    temperature: Annotated[float, Meta(ge=0, le=10, examples=[0.7])] | None = None
    #: Where an answer is cut off; when missing, the endpoint decides.
    max_tokens: Annotated[int, Meta(ge=1, examples=[4096])] | None = None
    #: The name under which a model reads what it thought before its earlier messages; without it none is sent back,
    #: unless the endpoint asks for it.
    reasoning_field: Literal["reasoning_content", "reasoning"] | None = None
    #: Headers that are added to each request.
    extra_headers: dict[str, str] = {}
    #: Fields that are added to the body of each request.
    extra_body: dict[str, Any] = {}

    def __post_init__(self) -> None:
        # No value is quoted in what is said here: any of them may be, or hold, a secret.
        if self.model is None and (self.base_url or self.api_key):
            raise ValueError("model: it is missing; name the model, as the endpoint calls it")
        if self.model is not None and not (self.base_url or self.api_key):
            raise ValueError("base_url: say where the model is (http://127.0.0.1:11434/v1), or give an api_key")
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise ValueError("api_key: it is empty or holds characters that no key has")
        if self.base_url is not None:
            _check_url(self.base_url)
        for name, value in self.extra_headers.items():
            if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
                raise ValueError(f"extra_headers: {name!r} is not a header, or its value is not plain ASCII")
        if taken := _OURS & self.extra_body.keys():
            raise ValueError(f"extra_body: {min(taken)!r} is set by the server")

    @property
    def url(self) -> str:
        """Where requests are posted to."""
        parts = self._parts
        path = parts.path.rstrip("/").removesuffix(_PATH) + _PATH
        return parts._replace(path=path).geturl()

    @property
    def origin(self) -> str:
        """Scheme, host and port: what people may be shown of the URL."""
        return f"{self._parts.scheme}://{self._parts.netloc}"

    @property
    def host(self) -> str:
        """The endpoint's name or address."""
        return self._parts.hostname or ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown, should an endpoint repeat it."""
        headers = [word for value in self.extra_headers.values() for word in (value, *value.split())]
        # As it is meant, and as it is written.
        query = [value for _, value in parse_qsl(self._parts.query)]
        query += [pair.partition("=")[2] for pair in self._parts.query.split("&")]
        body = [value for name, value in _texts(self.extra_body) if _SECRET_NAME.search(name)]
        # The longest first, as one may hold another; "Bearer" and the like are no secrets.
        values = {value for value in (self.api_key or "", *query, *headers, *body) if len(value) >= _SHORTEST_SECRET}
        return tuple(sorted(values, key=len, reverse=True))

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.base_url or OPENAI_URL)

    def __repr__(self) -> str:
        return f"ModelSettings(model={self.model!r}, origin={self.origin!r})"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        # As the resolver does it: labels have 1 to 63 characters.
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError("base_url: it is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("base_url: it is not of the form https://host[:port]/path")
    if "@" in parts.netloc:
        raise ValueError("base_url: a key does not belong into it; use api_key or extra_headers")
    if parts.fragment:
        raise ValueError("base_url: it has a fragment (#...)")


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, each with the name of the field that it is in."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, name)

"""Routes that say what they take and what they answer.

    ROUTES = Routes("Sessions", "Conversations, and what was said in them.")

    @ROUTES.get("/sessions", query=ListQuery, answer=SessionList)
    async def _list(request: web.Request) -> web.Response:
        ...  # begins with a docstring: its first line is the summary

    def add_routes(app: web.Application) -> None:
        ROUTES.add_to(app)

A route cannot be added without its description, nor described without being added.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from msgspec import Struct

from protocol.errors import ErrorCode
from server.auth import add_public, open_to_readers, open_to_tickets

__all__ = ["JSON", "OPERATIONS", "Answer", "Events", "Operation", "Problem", "Routes", "refusal"]

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

#: A type of which msgspec can make a JSON Schema, such as a struct, a list of them, a union; or a tuple of such types,
#: which stands for any of them.
JsonType: TypeAlias = Any

#: What a status says where nothing else is said of it.
_ABOUT: Final = {201: "Made", 204: "Done; there is nothing to say"}

_WORDS: Final = re.compile(r"[^A-Za-z0-9]+")

H = TypeVar("H", bound=Handler)


class Events(Struct, frozen=True):
    """In place of a type: a stream of events, as the protocol has them."""


class Problem(Struct, frozen=True):
    """In place of a type: a refusal (RFC 9457)."""


class Answer(Struct, frozen=True, kw_only=True):
    """One answer of a route: its status, and what its body holds, by media type.

    The type of a stream is that of its items (the data of a message, a line), `Events()` those of the protocol.
    None stands for anything, and where there are only bytes.
    """

    status: int = 200
    about: str = "OK"
    content: Mapping[str, JsonType] = {}
    headers: Sequence[str] = ()


def refusal(status: int, about: str) -> Answer:
    """A refusal whose status no error code has."""
    return Answer(status=status, about=about, content={PROBLEM: Problem()})


class Operation(Struct, frozen=True, kw_only=True):
    """A method and a path, with all that the document says about them."""

    method: str
    path: str
    tag: str
    tag_about: str
    name: str
    summary: str
    description: str
    query: type[Struct] | None
    headers: Sequence[str]
    body: JsonType
    body_required: bool
    body_media: Sequence[str]
    answers: Sequence[Answer]
    errors: Sequence[ErrorCode]
    public: bool
    streams: bool


#: What the application's routes are, in the order in which they were added.
OPERATIONS: Final = web.AppKey("operations", list[Operation])


class Description(TypedDict, total=False):
    """What is said about a route.

    `answer` is the type of its JSON body, `status` its status; without `answer` the status stands alone (204). A route
    that answers otherwise, or in several ways, gives `answers` instead. `query` is the struct of its query parameters,
    `headers` names request headers that it looks at, `body` is the type of its JSON body, which may be left out if it
    is not `body_required`. `errors` are the codes of its own refusals: those that its path, its body, its query and the
    door bring about come by themselves. `public`: it needs no token. `streams`: it never ends by itself, so HEAD must
    not ask for it. `tickets`: a ticket opens it. `readers`: tokens that are for reading reach it, other than by GET.
    """

    answer: JsonType
    status: int
    about: str
    answers: Sequence[Answer]
    query: type[Struct]
    headers: Sequence[str]
    body: JsonType
    body_required: bool
    body_media: Sequence[str]
    errors: Sequence[ErrorCode]
    public: bool
    streams: bool
    tickets: bool
    readers: bool


class _Route(Struct, frozen=True):
    operation: Operation
    handler: Handler
    tickets: bool
    readers: bool

    def add_to(self, app: web.Application) -> None:
        """Add it to those that need a token."""
        method, path = self.operation.method, self.operation.path
        added = app.router.add_route(method, path, self.handler)
        if method == hdrs.METH_GET and not self.operation.streams:
            app.router.add_head(path, self.handler)
        if self.tickets:
            open_to_tickets(app, added)
        if self.readers:
            open_to_readers(app, added)


class Routes:
    """The routes of one module, under one heading of the document; `about` it is said once."""

    def __init__(self, tag: str, about: str = "") -> None:
        self._tag = tag
        self._about = about
        self._routes: list[_Route] = []

    def get(self, path: str, **description: Unpack[Description]) -> Callable[[H], H]:
        """Describe a handler of GET requests, and of HEAD requests unless it `streams`."""
        return self._route(hdrs.METH_GET, path, description)

    def post(self, path: str, **description: Unpack[Description]) -> Callable[[H], H]:
        """Describe a handler of POST requests."""
        return self._route(hdrs.METH_POST, path, description)

    def put(self, path: str, **description: Unpack[Description]) -> Callable[[H], H]:
        """Describe a handler of PUT requests."""
        return self._route(hdrs.METH_PUT, path, description)

    def patch(self, path: str, **description: Unpack[Description]) -> Callable[[H], H]:
        """Describe a handler of PATCH requests."""
        return self._route(hdrs.METH_PATCH, path, description)

    def delete(self, path: str, **description: Unpack[Description]) -> Callable[[H], H]:
        """Describe a handler of DELETE requests."""
        return self._route(hdrs.METH_DELETE, path, description)

    def add_to(self, app: web.Application) -> None:
        """Add the routes to the router, in the order of the module: those with a fixed part before a `{name}` there."""
        described = app.setdefault(OPERATIONS, [])
        for route in self._routes:
            if route.operation.public:
                add_public(app, route.operation.method, route.operation.path, route.handler)
            else:
                route.add_to(app)
            described.append(route.operation)

    def _route(self, method: str, path: str, description: Description) -> Callable[[H], H]:
        def describe(handler: H) -> H:
            summary, text = _said(handler)
            operation = Operation(
                method=method,
                path=path,
                tag=self._tag,
                tag_about=self._about,
                name=f"{method.lower()}_{_WORDS.sub('_', path).strip('_')}",
                summary=summary,
                description=text,
                query=description.get("query"),
                headers=description.get("headers", ()),
                body=description.get("body"),
                body_required=description.get("body_required", True),
                body_media=description.get("body_media", (JSON,)),
                answers=_answers(description),
                errors=description.get("errors", ()),
                public=description.get("public", False),
                streams=description.get("streams", False),
            )
            flags = [bool(description.get(name)) for name in ("tickets", "readers")]
            self._routes.append(_Route(operation, handler, *flags))
            return handler

        return describe


def _answers(description: Description) -> Sequence[Answer]:
    if "answers" in description:
        return description["answers"]
    answer = description.get("answer")
    status = description.get("status", 200 if answer is not None else 204)
    about = description.get("about", _ABOUT.get(status, "Done"))
    content = {} if answer is None else {JSON: answer}
    headers = (hdrs.LOCATION,) if status == 201 else ()
    return (Answer(status=status, about=about, content=content, headers=headers),)


def _said(handler: Handler) -> tuple[str, str]:
    """The first line of the handler's docstring, and the rest."""
    summary, _, text = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
    summary = " ".join(summary.split())
    if not summary:
        raise ValueError(f"{handler!r} answers a route and does not say what it does: it needs a docstring")
    return summary.rstrip("."), text

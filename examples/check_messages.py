"""Check a deployment from end to end: make a session, open its stream, say something, see that and the answer to it.

python examples/check_messages.py http://127.0.0.1:8080 [--over sse|ws|ndjson] [--say TEXT] [--timeout SECONDS]

Both must come as `message_created` with everything that clients rely on. The exit code is 0 if they do over each
transport that was asked for (all three unless --over names one), and 1 if anything is missing or wrong. PARLEY_TOKEN
holds your token, if one is needed. It needs nothing but Python, and leaves no session behind.
"""

import argparse
import base64
import http.client
import json
import os
import re
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

Event = dict[str, Any]
#: Events, and how to send a command.
Channel = tuple[Iterator[Event], Callable[[Event], None]]


class CheckError(Exception):
    """What is not as it should be."""


class Server:
    """A deployment, and how long it may take."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = urlsplit(url)
        self._end = time.monotonic() + timeout
        token = os.environ.get("PARLEY_TOKEN")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    def close(self) -> None:
        """Close all connections."""
        for one in self._opened:
            one.close()

    def left(self) -> float:
        """Seconds; raises TimeoutError when there are none."""
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError("it takes too long")
        return left

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, http.client.HTTPResponse]:
        """The socket of a request, and the answer with its body still to be read."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=self.left())
        self._opened.append(connection)
        headers = {name.replace("_", "-"): value for name, value in headers.items()} | self._headers
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, self._url.path.rstrip("/") + path, json.dumps(body) if body else None, headers)
        socket, answer = connection.sock, connection.getresponse()
        self._opened.append(answer)
        if answer.status >= 300:
            raise CheckError(f"{method} {path}: {answer.status} {answer.read(500).decode(errors='replace')}")
        return socket, answer

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The body of the answer to a request."""
        return json.loads(self.open(method, path, body)[1].read() or b"null")


def sse(server: Server, path: str) -> Channel:
    """Server-sent events, with commands over POST."""
    _, answer = server.open("GET", f"{path}/events", Accept="text/event-stream")
    events = (json.loads(line[5:]) for line in answer if line.startswith(b"data:") and server.left())
    return events, lambda command: server.ask("POST", f"{path}/commands", command)


def ndjson(server: Server, path: str) -> Channel:
    """Lines of JSON, with commands over POST."""
    _, answer = server.open("GET", f"{path}/events", Accept="application/x-ndjson")
    events = (json.loads(line) for line in answer if line.strip() and server.left())
    return events, lambda command: server.ask("POST", f"{path}/commands", command)


def ws(server: Server, path: str) -> Channel:
    """WebSocket both ways (RFC 6455), as far as it is needed here: whole messages of text."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": key}
    socket, answer = server.open("GET", f"{path}/ws", **upgrade)
    if answer.status != 101:
        raise CheckError(f"no WebSocket: {answer.status}")

    def read() -> Iterator[Event]:
        while server.left() and len(head := answer.fp.read(2)) == 2:
            kind, length = head[0] & 15, head[1] & 127
            if length > 125:
                width = 2 if length == 126 else 8
                length = int.from_bytes(answer.fp.read(width))
            data = answer.fp.read(length)
            if kind == 1:
                yield json.loads(data)

    def send(command: Event) -> None:
        data, mask = json.dumps(command).encode(), secrets.token_bytes(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        socket.sendall(struct.pack("!BBH", 0x81, 0x80 | 126, len(data)) + mask + masked)

    return read(), send


def is_uuid(value: Any) -> bool:
    """Whether it is one, in its usual form."""
    with suppress(ValueError):
        return isinstance(value, str) and str(UUID(value)) == value
    return False


def is_time(value: Any) -> bool:
    """Whether it is an RFC 3339 time of UTC with milliseconds."""
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value) is not None


def is_text(value: Any) -> bool:
    """Whether it says something."""
    return isinstance(value, str) and value != ""


def examine(event: Event, session: str, text: str) -> None:
    """Raise CheckError unless a `message_created` has all that it must have."""
    payload = event.get("payload")
    if not isinstance(payload, dict) or payload.get("role") not in ("user", "assistant"):
        raise CheckError(f"message_created of nobody: {event}")
    role = payload["role"]
    expected: dict[str, Callable[[Any], bool]] = {
        "session_id": lambda value: value == session,
        "timestamp": is_time,
        "payload.message_id": is_uuid,
        "payload.content": (lambda value: value == text) if role == "user" else lambda value: isinstance(value, str),
        "payload.timestamp": is_time,
    }
    if role == "assistant":
        expected |= {"payload.agent_id": is_uuid, "payload.agent_name": is_text}
    for field, is_right in expected.items():
        place = payload if field.startswith("payload.") else event
        name = field.removeprefix("payload.")
        if name not in place:
            raise CheckError(f"message_created ({role}): {field} is missing")
        if not is_right(place[name]):
            raise CheckError(f"message_created ({role}): {field} is {place[name]!r}")


def describe(message: Event) -> Iterator[str]:
    """What people want to see of a message."""
    yield f"{message['role']} {message['message_id']}"
    if "agent_name" in message:
        yield f"{message['agent_name']} {message['agent_id']}"
    yield repr(message["content"] if len(message["content"]) < 40 else message["content"][:37] + "...")


def check(server: Server, channel: Callable[[Server, str], Channel], text: str) -> None:
    """One turn in a new session; raises CheckError."""
    session = server.ask("POST", "/sessions", {"title": "check_messages"})["id"]
    path = f"/sessions/{session}"
    seen: dict[str, Event] = {}
    try:
        events, send = channel(server, path)
        send({"type": "user_message", "id": uuid4().hex, "content": text})
        for event in events:
            match event:
                case {"event_type": "message_created"}:
                    examine(event, session, text)
                    seen[event["payload"]["role"]] = event["payload"]
                    print("  message_created", *describe(event["payload"]))
                case {"event_type": "command_error" | "turn_error" | "disconnect"}:
                    raise CheckError(f"{event['event_type']}: {event['payload']}")
                case {"event_type": "task_completed"}:
                    break
                case _:
                    pass  # there are more events, and there will be new ones
        else:
            raise CheckError("the stream ended before the turn did")
    finally:
        with suppress(CheckError, OSError, http.client.HTTPException):
            server.ask("DELETE", path)
    if "user" not in seen or not is_text(seen.get("assistant", {}).get("content")):
        raise CheckError(f"the turn is over, and message_created came for: {', '.join(seen) or 'nobody'}")
    if seen["user"]["message_id"] == seen["assistant"]["message_id"]:
        raise CheckError("both messages have the same message_id")


CHANNELS = {"sse": sse, "ws": ws, "ndjson": ndjson}


def main() -> int:
    """Check each transport; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="where Parley is: https://parley.example.org")
    parser.add_argument("--over", choices=CHANNELS, help="this transport only")
    parser.add_argument("--say", metavar="TEXT", default="Say hello.", help="what is said to the default agent")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="for each transport")
    given = parser.parse_args()
    if not given.url.startswith(("http://", "https://")):
        parser.error(f"{given.url} is not of the form https://host[:port]")
    failed = False
    for name in [given.over] if given.over else CHANNELS:
        print(f"{name}:")
        try:
            with closing(Server(given.url, given.timeout)) as server:
                check(server, CHANNELS[name], given.say)
            print("  all there")
        except (CheckError, OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as trouble:
            print(f"  WRONG: {trouble!r}" if not isinstance(trouble, CheckError) else f"  WRONG: {trouble}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

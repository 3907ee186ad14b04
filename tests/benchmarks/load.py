"""The load: one process, one loop over raw sockets, which reads and counts.

It understands as much of HTTP and WebSocket as it takes to be served, and nothing of what it is served: events are
counted by a byte that each holds once. So it costs a small part of what serving costs; how much, every answer says.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, Final
from uuid import uuid4

from tests.benchmarks.children import answer, cpu_seconds, pin, raise_file_limit
from tests.benchmarks.counting import Work, count_events, language
from tests.benchmarks.polling import PATIENCE, Poller

__all__: list[str] = []

#: Connections are opened so many at a time, fewer than a listener lets wait.
_BATCH: Final = 100
_ACK: Final = b'"event_type":"ack"'
_DELTA: Final = b'"message_delta"'


class _Load:
    def __init__(self) -> None:
        self._groups: dict[str, list[socket.socket]] = {}

    def open(self, group: str, port: int, paths: list[str], count: int, ready: str) -> int:
        """Open so many streams, over the paths in turn; returns once each has been sent the text `ready`."""
        sockets = self._groups.setdefault(group, [])
        wanted = [path for path, _ in zip(cycle(paths), range(count), strict=False)]
        for first in range(0, count, _BATCH):
            batch = [_connect(port, _handshake(port, path)) for path in wanted[first : first + _BATCH]]
            for each in batch:
                _read_until(each, ready.encode())
            sockets += batch
        return len(sockets)

    def close(self, group: str) -> None:
        """End the streams of a group."""
        for each in self._groups.pop(group):
            each.close()

    def fan_out(self, group: str, control: int, in_flight: int, rounds: int, toil: bool) -> dict[str, float]:
        """Let so many events be published, `in_flight` at a time, and count them until every stream has each.

        `toil` makes a read cost about twice as much: where that changes nothing, the load is not the bottleneck.
        """
        sockets = self._groups[group]
        publisher = _connect(control, b"")
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        language()  # is found out before anything counts
        began, cpu = time.perf_counter(), cpu_seconds()
        counted = count_events(sockets, publisher, Work(in_flight, rounds, toil))
        seconds, used = time.perf_counter() - began, cpu_seconds() - cpu
        publisher.close()
        rate = rounds * len(sockets) / seconds
        return {"seconds": seconds, "cpu": used, "rate": rate, "bytes": counted.received, "reads": counted.reads}

    def language(self) -> str:
        """What events are counted in."""
        return language()

    def post(self, port: int, sessions: list[str], count: int) -> dict[str, float]:
        """Commands by POST over kept connections, one caller a session, each waiting for its answer."""
        sockets = [_connect(port, b"") for _ in sessions]
        requests = dict(zip((each.fileno() for each in sockets), map(_posts(port), sessions), strict=True))
        try:
            return _closed_loop(sockets, count, lambda descriptor: next(requests[descriptor]), _answered)
        finally:
            for each in sockets:
                each.close()

    def say(self, group: str, count: int) -> dict[str, float]:
        """Commands over the group's WebSockets, each caller waiting for its ack."""
        return _closed_loop(self._groups[group], count, lambda _: _frame(_message()), lambda data: _ACK in data)

    def paced(self, group: str, rate: float, count: int, ends: str) -> dict[str, Any]:
        """Say something `rate` times a second, each time on a stream that is at rest, whatever the answers take.

        `ends` is what a stream is sent last. Returns the milliseconds from sending to the first delta.
        """
        sockets = {each.fileno(): each for each in self._groups[group]}
        poller = Poller(list(sockets.values()))
        resting = deque(sockets)
        waiting: dict[int, float] = {}
        tails = dict.fromkeys(sockets, b"")
        delays: list[float] = []
        late: list[float] = []
        sent, last, cpu = 0, ends.encode(), cpu_seconds()
        began = time.perf_counter()
        while len(delays) < count or len(resting) < len(sockets):
            due = began + sent / rate
            pause = PATIENCE if sent == count else max(due - time.perf_counter(), 0)
            if pause and not (descriptors := poller.ready(pause)) and sent == count:
                raise RuntimeError("an answer did not come")
            descriptors = descriptors if pause else poller.ready(0)
            now = time.perf_counter()
            for descriptor in descriptors:
                data = tails[descriptor] + sockets[descriptor].recv(1 << 16)
                if descriptor in waiting and _DELTA in data:
                    delays.append(1e3 * (now - waiting.pop(descriptor)))
                if last in data:
                    resting.append(descriptor)
                    data = b""
                tails[descriptor] = data[-64:]
            if sent < count and (now := time.perf_counter()) >= due:
                late.append(1e3 * (now - due))
                descriptor = resting.popleft()
                message = _frame(_message())
                waiting[descriptor] = time.perf_counter()
                sockets[descriptor].send(message)
                sent += 1
        poller.close()
        return {"delays": delays, "late": max(late), "cpu": cpu_seconds() - cpu, "seconds": time.perf_counter() - began}

    def cpu(self) -> float:
        """What this process has used."""
        return cpu_seconds()


def _connect(port: int, first: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.sendall(first)
    return connection


def _read_until(connection: socket.socket, text: bytes) -> None:
    data = b""
    while text not in data:
        more = connection.recv(1 << 16)
        if not more:
            raise RuntimeError(f"a stream was refused: {data[:300]!r}")
        data += more


def _handshake(port: int, path: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    if path.endswith("/ws"):
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    else:
        lines += ["Accept: text/event-stream"]
    return "\r\n".join([*lines, "", ""]).encode()


def _message() -> bytes:
    return b'{"type":"user_message","id":"%s","content":"What is the time?"}' % uuid4().hex.encode()


def _frame(payload: bytes) -> bytes:
    """A client's text frame (RFC 6455, section 5.2), masked by zeros."""
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def _posts(port: int) -> Callable[[str], Iterator[bytes]]:
    def requests(session: str) -> Iterator[bytes]:
        head = (
            f"POST /sessions/{session}/commands HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(_message())}\r\n\r\n"
        ).encode()
        while True:
            yield head + _message()

    return requests


def _answered(data: bytes) -> bool:
    """Whether this is a whole response; RuntimeError when it is a refusal."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return False
    if not data.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(data.decode())
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


def _closed_loop(
    sockets: list[socket.socket],
    count: int,
    request: Callable[[int], bytes],
    answered: Callable[[bytes], bool],
) -> dict[str, float]:
    """Every caller sends its next request when its last one was answered, until `count` are."""
    poller = Poller(sockets)
    callers = {each.fileno(): each for each in sockets}
    buffers = dict.fromkeys(callers, b"")
    sent = done = 0
    began, cpu = time.perf_counter(), cpu_seconds()
    for descriptor, each in callers.items():
        each.sendall(request(descriptor))
        sent += 1
    while done < sent:
        descriptors = poller.ready()
        if not descriptors:
            raise RuntimeError("an answer did not come")
        for descriptor in descriptors:
            each = callers[descriptor]
            data = buffers[descriptor] + each.recv(1 << 16)
            if not answered(data):
                buffers[descriptor] = data
                continue
            buffers[descriptor] = b""
            done += 1
            if sent < count:
                each.sendall(request(descriptor))
                sent += 1
    seconds, used = time.perf_counter() - began, cpu_seconds() - cpu
    poller.close()
    return {"seconds": seconds, "cpu": used, "rate": done / seconds, "done": done}


def _main(options: dict[str, Any]) -> None:
    pin(options["core"])
    raise_file_limit()
    load = _Load()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(getattr(load, request.pop("command"))(**request))
        except Exception as error:  # noqa: BLE001 - the parent raises it
            answer(error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))

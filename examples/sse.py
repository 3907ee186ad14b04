"""Server-sent events with httpx: say something, print each event, and go on with Last-Event-ID when the stream is cut.

python examples/sse.py http://127.0.0.1:8080 "count to 20 slowly"      (PARLEY_TOKEN holds your token, if one is needed)
"""

import os
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse


def follow(http: httpx.Client, session: str) -> Iterator[ServerSentEvent]:
    """All events of a session, each that is kept exactly once, for as long as you listen."""
    last_id = "0"  # before the first event
    while True:
        try:
            with connect_sse(http, "GET", f"/sessions/{session}/events", headers={"Last-Event-ID": last_id}) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    last_id = event.id or last_id
                    yield event
        except httpx.TransportError as trouble:
            print(f"the stream was cut ({trouble}), going on after {last_id}", file=sys.stderr)
        time.sleep(1)


def main(url: str, content: str) -> str | None:
    """One turn in a new session; what went wrong, if anything did."""
    token = os.environ.get("PARLEY_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # A heartbeat comes every 15 seconds, so that silence for longer is a dead connection.
    with httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(10, read=40)) as http:
        session = http.post("/sessions", json={}).raise_for_status().json()["id"]
        command = {"type": "user_message", "id": uuid4().hex, "content": content}
        http.post(f"/sessions/{session}/commands", json=command).raise_for_status()
        for event in follow(http, session):
            match event.event:
                case "message_created" | "tool_call" | "tool_result":
                    print(event.event, event.data)
                case "task_completed":
                    done = event.json()["payload"]
                    return None if done["status"] == "completed" else str(done.get("error", done["status"]))
                case _:
                    pass  # there are more events, and there will be new ones
    return None


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except (httpx.HTTPError, SSEError) as trouble:
        sys.exit(f"sse: {trouble}")

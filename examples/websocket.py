"""The protocol itself over WebSocket: say something, print the answer, and go on where a lost connection was lost.

python examples/websocket.py http://127.0.0.1:8080 "count to 20 slowly"      (PARLEY_TOKEN holds your token, if needed)
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Any
from uuid import uuid4

import aiohttp

FINAL = {1002, 1007, 1009, *range(4500, 5000)}  # close codes after which it is no use to come back


def show(event: dict[str, Any], shown: dict[str, tuple[int, bytes]]) -> None:
    """Print what an event adds to the answer. Offsets count UTF-16 code units, so that is how the text is kept."""
    match event:
        case {"event_type": "message_delta", "payload": {"part": "content", "text": text, "offset": offset} as payload}:
            pass
        case {"event_type": "message_created", "payload": {"role": "assistant", "content": content} as payload}:
            text, offset = content + "\n", 0  # the whole text: it has the last word
        case _:
            return  # there are more events, and there will be new ones
    attempt, known = shown.get(payload["message_id"], (1, b""))
    if (newer := payload.get("attempt", attempt)) > attempt:  # another process begins the answer anew
        attempt, known = newer, b""
        print()
    piece, start = text.encode("utf-16-le"), 2 * offset
    if start <= len(known) < start + len(piece):  # else it is a repetition, or one that a later piece will mend
        print(piece[len(known) - start :].decode("utf-16-le"), end="", flush=True)
        known += piece[len(known) - start :]
    shown[payload["message_id"]] = attempt, known


def problem(completed: dict[str, Any]) -> str | None:
    """What went wrong with a turn, if anything did."""
    return None if completed["status"] == "completed" else str(completed.get("error", completed["status"]))


async def say(url: str, content: str) -> str | None:
    """One turn in a new session; what went wrong with it."""
    token = os.environ.get("PARLEY_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as http:
        async with http.post(f"{url}/sessions", json={}) as answer:
            address = f"{url}/sessions/{(await answer.json())['id']}/ws"
        command = {"type": "user_message", "id": uuid4().hex, "content": content}
        cursor, shown = "0", dict[str, tuple[int, bytes]]()
        while True:
            with suppress(aiohttp.ClientConnectionError):  # the server is away, perhaps to be replaced by a newer one
                async with http.ws_connect(address, params={"after": cursor}, heartbeat=15) as socket:
                    await socket.send_json(command)  # each time: what has the same id takes effect once
                    async for message in socket:
                        event = message.json()
                        cursor = event.get("cursor", cursor)
                        show(event, shown)
                        if event["event_type"] == "task_completed":
                            return problem(event["payload"])
                    if socket.close_code in FINAL:
                        return f"the server said goodbye ({socket.close_code})"
            await asyncio.sleep(1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(asyncio.run(say(*sys.argv[1:])))
    except aiohttp.ClientError as trouble:
        sys.exit(f"websocket: {trouble}")

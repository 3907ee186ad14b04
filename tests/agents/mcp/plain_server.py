"""A server of tools as small as the protocol (2025-06-18) lets it be; for the failures that a real one never has.

`python plain_server.py LOG` writes each message that it gets to LOG. Nothing but the standard library, so that it is
there at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

LOG = Path(sys.argv[1])
PAGES = [["echo", "die"], ["slow", "grow"], ["odd name!", "broken schema"]]
GROWN: list[str] = []
ANNOTATIONS = {"echo": {"readOnlyHint": True}, "grow": {"idempotentHint": True}}


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def described(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}
    if name == "broken schema":
        schema["properties"]["text"]["type"] = "text"
    return {"name": name, "description": f"It is {name}.", "inputSchema": schema, "annotations": ANNOTATIONS.get(name)}


def listed(params: dict[str, Any]) -> dict[str, Any]:
    page = int(params.get("cursor") or 0)
    names = [*PAGES[page], *(GROWN if page == 0 else [])]
    following = {"nextCursor": str(page + 1)} if page + 1 < len(PAGES) else {}
    return {"tools": [{k: v for k, v in described(name).items() if v is not None} for name in names], **following}


def call(number: int, name: str, arguments: dict[str, Any]) -> None:
    if name == "die":
        os._exit(1)
    if name == "slow":
        return
    if name == "grow":
        GROWN.append(arguments.get("text", "grown"))
        send(method="notifications/tools/list_changed")
    text = {"type": "text", "text": arguments.get("text", "done")}
    send(id=number, result={"content": [text], "isError": arguments.get("text") == "fail"})


def handle(message: dict[str, Any]) -> None:
    params = message.get("params") or {}
    match message.get("method"):
        case "initialize":
            about = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "plain", "version": "1"}}
            send(id=message["id"], result={**about, "capabilities": {"tools": {"listChanged": True}}})
        case "tools/list":
            send(id=message["id"], result=listed(params))
        case "tools/call":
            call(message["id"], params["name"], params.get("arguments") or {})
        case _ if "id" in message:
            send(id=message["id"], error={"code": -32601, "message": "no such method"})
        case _:
            pass


sys.stderr.write("plain server begins\n")
sys.stderr.flush()
with LOG.open("a", encoding="utf-8") as log:
    for line in sys.stdin:
        log.write(line)
        log.flush()
        handle(json.loads(line))

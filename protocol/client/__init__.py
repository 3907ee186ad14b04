"""The Python client: one session, followed and spoken to over whatever transport the network lets through.

    async with connect("http://127.0.0.1:8080", token=...) as session:
        await session.say("hello")
        async for event in session:
            match event.payload:
                case MessageDelta(message_id=message_id):
                    print(session.texts[message_id].text())

Events come in the order of the log, each durable one once, also over lost connections and restarted servers: the
client reconnects at its cursor, as the server advises, with full jitter. Commands are sent until they are
acknowledged, under the same id, which takes effect once. WebSocket comes first; where it is not let through, SSE and
POST do the same.
"""

from protocol.client.backoff import Backoff
from protocol.client.http import Token
from protocol.client.links import Transport
from protocol.client.rest import Server, create_session
from protocol.client.session import Client, Received, connect
from protocol.client.settings import Timings
from protocol.client.views import (
    AgentInfo,
    AgentSpan,
    CreatedSession,
    Health,
    HistoryMessage,
    HistoryPage,
    SessionInfo,
    SessionPage,
)

__all__ = [
    "AgentInfo",
    "AgentSpan",
    "Backoff",
    "Client",
    "CreatedSession",
    "Health",
    "HistoryMessage",
    "HistoryPage",
    "Received",
    "Server",
    "SessionInfo",
    "SessionPage",
    "Timings",
    "Token",
    "Transport",
    "connect",
    "create_session",
]

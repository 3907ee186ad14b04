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

from protocol.client.answer import AgentFailed, Answer, Chunk, GrowingAnswer
from protocol.client.backoff import Backoff
from protocol.client.feed import Events, Received
from protocol.client.http import Token
from protocol.client.rest import Server, create_session
from protocol.client.session import Client, connect
from protocol.client.settings import Timings, Transport
from protocol.client.status import State, Status
from protocol.client.sync import SyncAnswer, SyncClient, connect_sync
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
    "AgentFailed",
    "AgentInfo",
    "AgentSpan",
    "Answer",
    "Backoff",
    "Chunk",
    "Client",
    "CreatedSession",
    "Events",
    "GrowingAnswer",
    "Health",
    "HistoryMessage",
    "HistoryPage",
    "Received",
    "Server",
    "SessionInfo",
    "SessionPage",
    "State",
    "Status",
    "SyncAnswer",
    "SyncClient",
    "Timings",
    "Token",
    "Transport",
    "connect",
    "connect_sync",
    "create_session",
]

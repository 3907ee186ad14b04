"""The Python client.

Ask, and have the answer:

    from parley import connect

    async with connect("http://127.0.0.1:8080") as session:  # a new session; name one to join it
        answer = await session.ask("count to 20")
        print(answer.text, answer.usage)

or see it grow. Printing the text of each chunk prints the answer; `chunk.event` is what is behind it:

    from parley import connect, events

    async with connect("http://127.0.0.1:8080", "my-session") as session:
        async for chunk in session.ask('use tool calculate {"expression": "6*7"}'):
            print(chunk.text, end="", flush=True)
            match chunk.event.payload:
                case events.ToolCall(name=name, arguments=arguments):
                    print(f"[{name}: {arguments}]")

A session has more than one client. This hears everything that happens in it, from the beginning on, whoever asked:

    from parley import connect, events

    async with connect("http://127.0.0.1:8080", "my-session", after="0") as session:
        await session.say("count to 20")
        async for event in session:
            match event.payload:
                case events.MessageDelta(part="content"):
                    print("writing:", event.text)  # all of it, as far as it is there
                case events.MessageCreated(role=role, content=content):
                    print(f"{role}: {content}")  # the whole message, which has the last word
                case events.TaskCompleted():
                    break

Without `async`, also in a notebook and from several threads:

    from parley import connect_sync

    with connect_sync("http://127.0.0.1:8080") as session:
        print(session.ask("hello").text)
        for chunk in session.stream("count to 20"):
            print(chunk.text, end="", flush=True)

Run an agent's tools where you are, and decide about its calls. A function is a tool: its signature says what it takes,
its docstring tells the agent what it is for. Each call runs once, however often the connection is lost, and its result
is sent until the server has it:

    from parley import client_tool, connect, events

    @client_tool(read_only=True)
    def count_lines(path: str) -> int:
        \"\"\"Count the lines of a file.\"\"\"
        with open(path) as file:
            return sum(1 for _ in file)

    async with connect("http://127.0.0.1:8080", tools=[count_lines]) as session:
        growing = session.ask('use tool count_lines {"path": "README.md"}')
        async for chunk in growing:
            match chunk.event.payload:
                case events.ApprovalRequired(call_id=call_id, name="count_lines"):
                    await session.approve(call_id, remember="session")  # or edit, reject, respond
        print(growing.text)

What is asked once and answered once:

    from parley import Server

    async with Server("http://127.0.0.1:8080") as server:
        for info in (await server.sessions(limit=10)).sessions:
            print(info.title or info.alias or info.id, info.message_count)
            async for message in server.messages(info.id):
                print(" ", message.role, message.content)

What it promises

- Durable events come in the order of the log, each once, over lost connections, restarted servers and changed
  transports. A hole in the stream closes the connection, and what is missing is read again.
- A command is sent until it is acknowledged, under the same id, which takes effect once; commands keep their order.
- WebSocket comes first; where the network does not let it through, server-sent events and POST do the same.
  `session.state` and `session.changes()` tell how the connection stands.
- Who reads slowly is waited for: nothing is dropped, and memory does not grow.
- A call of a tool runs once in the life of a client, and with a `journal` once for all: a program that was killed and
  is started again answers from what it did. While a tool runs, the client keeps the call; a tool that wants to tell how
  far it is takes a `CallContext`. A call that nobody wants any more is cancelled.

When something goes wrong

- ParleyError: the server refused; `code`, `message`, `path` (the field) and `retry_after` (seconds) say what and why.
  Iterating raises it when coming back would be pointless: the session was deleted, the token is not good.
- AgentFailed: the turn did not complete; `error.answer` has what there is.
- ConnectionError: nobody answers, or the client was closed. Once connected, a client goes on trying.
- TimeoutError: a command was not acknowledged in time; sending it again under its id tells whether it took effect.
- ValueError: an address, cursor, client id, token or tool that cannot be one.

A token may be a function, also an async one: it is asked for the newest token for each connection, and again when one
is refused. Patience, and how much is held in memory, are in `Timings`.
"""

from protocol.client.answer import AgentFailed, Answer, Chunk, GrowingAnswer
from protocol.client.backoff import Backoff
from protocol.client.feed import Events, Received
from protocol.client.http import Token
from protocol.client.reports import (
    Approval,
    ApprovalDetails,
    ApprovalPage,
    Branch,
    Grouping,
    Policies,
    PolicyInfo,
    RuleInfo,
    TurnInfo,
    TurnPage,
    UsageGroup,
    UsageReport,
    UsageTotal,
)
from protocol.client.rest import Server, create_session
from protocol.client.session import Client, connect
from protocol.client.settings import Timings, Transport
from protocol.client.speaking import Remembered
from protocol.client.status import State, Status
from protocol.client.sync import SyncAnswer, SyncClient, connect_sync
from protocol.client.tools import CallContext, ClientTool, Offered, client_tool
from protocol.client.views import (
    AgentInfo,
    AgentSpan,
    CreatedSession,
    Health,
    HistoryMessage,
    HistoryPage,
    Match,
    SessionInfo,
    SessionPage,
)

__all__ = [
    "AgentFailed",
    "AgentInfo",
    "AgentSpan",
    "Answer",
    "Approval",
    "ApprovalDetails",
    "ApprovalPage",
    "Backoff",
    "Branch",
    "CallContext",
    "Chunk",
    "Client",
    "ClientTool",
    "CreatedSession",
    "Events",
    "Grouping",
    "GrowingAnswer",
    "Health",
    "HistoryMessage",
    "HistoryPage",
    "Match",
    "Offered",
    "Policies",
    "PolicyInfo",
    "Received",
    "Remembered",
    "RuleInfo",
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
    "TurnInfo",
    "TurnPage",
    "UsageGroup",
    "UsageReport",
    "UsageTotal",
    "client_tool",
    "connect",
    "connect_sync",
    "create_session",
]

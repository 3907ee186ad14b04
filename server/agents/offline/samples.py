"""Texts that the offline agent can produce: explanations, samples of Markdown and Unicode, long answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

__all__ = ["CODE", "EMOJI", "LIST", "MARKDOWN", "TABLE", "TOPICS", "essay", "numbers"]

TOPICS = {
    "transport": (
        "**Transports.** A session has one stream of events, over WebSocket (`/sessions/{id}/ws`), SSE or NDJSON "
        "(`/sessions/{id}/events`, chosen by `Accept`). Commands go up the WebSocket or by "
        "`POST /sessions/{id}/commands`. Bodies and events are the same everywhere, and you may change the transport "
        "in the middle of an answer: try it while I `count to 200 slowly`."
    ),
    "cursor": (
        "**Cursors.** Every durable event of a session has a number, gap-free from 1, and a cursor `<epoch>.<seq>`. "
        "Keep the last one you saw and give it back as `after=` (or let EventSource send `Last-Event-ID`): you get "
        "exactly what you missed. `after=0` replays everything."
    ),
    "resume": (
        "**Resuming.** After a lost connection, connect again with the last cursor. First comes `connected`, then what "
        "you missed, then `sync`, then one merged delta for the message being written, then live events. Deltas carry "
        "an offset, so repeated ones do no harm. Try it: ask me to `count to 200 slowly` and reload in the middle."
    ),
    "cancel": (
        "**Cancelling.** Send a `cancel` command, with or without the `turn_id`. The turn ends with `task_completed`, "
        "status `cancelled`, and the text so far is stored as a message with `finish_reason: cancelled`. Closing the "
        "connection is no cancel: the turn goes on without you."
    ),
    "queue": (
        "**The queue.** A message sent while I am answering waits by default (`on_busy: enqueue`); `reject` refuses "
        "it, `interrupt` ends my answer and is next, `steer` joins my turn before its next step. Waiting messages can "
        "be reordered or removed with `queue_update`."
    ),
    "approval": (
        "**Approvals.** What changes something asks first (`approval_required`), and runs when a person says so "
        "(`hitl_decision`: `approve`, `edit`, `reject`, `respond`), on any device, today or next week, whatever "
        "restarted meanwhile. Try `write the file hello.txt with hi`; it runs where a client offers it, such as "
        "`parley chat --folder .`. Policies in the configuration say what is asked."
    ),
    "tool": (
        "**Tools.** Tools run in the server (those that come with it, functions of yours under `@tool`, servers that "
        "speak MCP), or where you are: a client offers them with `register_tools`, as `parley chat --folder .` does. "
        "Arguments stream as they are written. Try `call clock and calculate 2+2`, or `what time is it then calculate "
        "6*7` for two steps, or `read README.md`."
    ),
    "agent": (
        "**Agents.** Send `switch_agent`, or give `agent_type` with a message, to choose who answers. `GET /agents` "
        "lists them. I hand my turn over with `hand over to coder`, and ask somebody with `ask the architect "
        "to count to 5`. An agent of your own is one async generator function."
    ),
    "delta": (
        "**Streaming.** While a message is being written, `message_delta` events carry its pieces with their offset in "
        "UTF-16 units. The `message_created` event at the end has the whole text, and the last word."
    ),
}
"""Explanations by keyword."""

CODE = (
    "```python\n"
    "async def parrot(context):\n"
    '    """An agent that repeats what you say."""\n'
    "    yield context.history[-1].content\n"
    "```\n"
)

TABLE = (
    "| transport | down | up |\n"
    "|---|---|---|\n"
    "| WebSocket | frames | frames |\n"
    "| SSE | `text/event-stream` | POST |\n"
    "| NDJSON | `application/x-ndjson` | POST |\n"
)

LIST = "1. first\n2. second\n   - with a *nested* item\n   - and **another**\n3. third\n"

MARKDOWN = (
    "# A heading\n\nA paragraph with **bold**, *emphasis*, `code` and a [link](https://example.org/).\n\n"
    f"> A quotation.\n\n{LIST}\n{TABLE}\n{CODE}\n---\n\nAnd that is all.\n"
)

EMOJI = (
    "Beyond the basic plane: 😀 🚀 𝄞 𐍈. Joined: 👩\u200d👩\u200d👧\u200d👦 👩🏽\u200d💻 🏳\ufe0f\u200d🌈. "
    "Flags: 🇫🇷🇯🇵🇧🇷. Skin tones: 👋🏿 👍🏻. Combining: e\u0301 n\u0303 q\u0307\u0323. "
    "Hangul: 한국어. Arabic: مرحبا. Hebrew: שלום. Devanagari: नमस्ते. Thai: สวัสดี. "
    "Chinese: 你好世界。 Japanese: こんにちは。"
)

_SENTENCES = (
    "Whoever looks at {0} for the first time sees the surface, and the order behind it only later.",
    "There is much to say about {0}, and most of it has been said by people who had to live with it.",
    "A small example of {0} often teaches more than a long theory.",
    "It helps to ask what {0} would look like if it were simple.",
    "Some prefer the old way, others the new one, and {0} has room for both.",
    "Nothing about {0} is urgent until the day on which everything about it is.",
    "The best questions about {0} are the ones that can be answered by looking.",
    "In the end {0} is a matter of patience and of good notes.",
    "What was true of {0} ten years ago is partly true today.",
    "One can measure {0}, draw it, or tell it as a story; each shows another side.",
)


def essay(topic: str, words: int) -> Iterator[str]:
    """Exactly ``words`` words about ``topic``, a sentence at a time; the same topic gives the same text."""
    written = 0
    for number in range(words):
        digest = hashlib.sha256(f"{topic}:{number}".encode()).digest()
        sentence = _SENTENCES[digest[0] % len(_SENTENCES)].format(topic).split()
        # The space stands before a sentence, as it does before a token.
        space = "" if number == 0 else "\n\n" if number % 5 == 0 else " "
        left = words - written
        if left <= len(sentence):
            yield space + " ".join(sentence[:left]).rstrip(".,;") + "."
            return
        written += len(sentence)
        yield space + " ".join(sentence)


def numbers(last: int) -> Iterator[str]:
    """The numbers from 1 to ``last``, separated by spaces."""
    for number in range(1, last + 1):
        yield f" {number}" if number > 1 else "1"

"""Say something to an agent and print the answer while it is written.

python examples/say.py http://127.0.0.1:8080 "count to 20 slowly"      (PARLEY_TOKEN holds your token, if one is needed)
"""

import asyncio
import os
import sys

from parley import ParleyError, connect, events


def grow(shown: str, text: str) -> str:
    """Print what `text` has beyond what is shown."""
    if not text.startswith(shown):
        print("\n(another process begins the answer anew)")
        shown = ""
    print(text[len(shown) :], end="", flush=True)
    return text


async def say(url: str, text: str) -> str | None:
    """One turn in a new session; what went wrong, if anything did."""
    shown = ""
    async with connect(url, token=os.environ.get("PARLEY_TOKEN")) as session:
        await session.say(text)
        async for event in session:
            match event.payload:
                case events.MessageDelta(part="content", message_id=message_id):
                    shown = grow(shown, session.texts[message_id].text())
                case events.MessageCreated(role="assistant", content=content):
                    grow(shown, content + "\n")  # the whole text: it has the last word
                    shown = ""
                case events.TaskCompleted(status=status, error=error):
                    return None if status == "completed" else error.message if error else status
                case _:
                    pass  # there are more events, and there will be new ones
    return "the session was closed"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(asyncio.run(say(*sys.argv[1:])))
    except (ParleyError, ConnectionError) as trouble:
        sys.exit(f"say: {trouble}")

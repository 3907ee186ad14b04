"""What is asked in the chaos suite, and what a complete answer to it is."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from server.agents.offline import samples

__all__ = ["Request", "draw"]

_TOPICS: Final = ("rivers", "the moon 🌙", "bread")


class Request(NamedTuple):
    """A message to an agent, and what its last answer must be if its turn is completed; None: whatever it says."""

    content: str
    answer: str | None = None


def draw(dice: random.Random) -> Request:
    """A request: long and short texts, tools in one and in several steps, reasoning, failures, surrogate pairs."""
    kind = dice.choices(
        ("count", "essay", "tools", "echo", "emoji", "think", "fail"), weights=(30, 20, 20, 10, 8, 8, 4)
    )[0]
    match kind:
        case "count":
            last = dice.randrange(20, 301)
            return Request(f"count to {last}", " ".join(str(number) for number in range(1, last + 1)))
        case "essay":
            words, topic = dice.randrange(50, 301), dice.choice(_TOPICS)
            return Request(f"write {words} words about {topic}", "".join(samples.essay(topic, words)))
        case "tools":
            factor = dice.randrange(2, 1000)
            product = f"`calculate` returned: {6 * factor}"
            if dice.random() < 0.3:
                return Request(f"calculate 6*{factor} and calculate 2+2", f"{product}\n\n`calculate` returned: 4")
            if dice.random() < 0.3:
                return Request(f"calculate 6*{factor} then call clock then calculate 1+1")
            return Request(f"call clock then calculate 6*{factor}")
        case "echo":
            text = "👩🏽\u200d💻 and 𝄞, " * dice.randrange(5, 60)
            return Request(f"echo {text.strip()}", text.strip())
        case "emoji":
            return Request("show emoji", samples.EMOJI)
        case "think":
            return Request("think about trees and their shadows")
        case _:
            return Request(dice.choice(("fail", "fail late")))

"""The table of what the offline agent understands; `help` is made from it.

An intent is a pattern, a handler and an example. They are tried from top to bottom, after tool calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from server.agents.interface import AgentError
from server.agents.offline import calling, recall, samples
from server.agents.offline.scene import Reply, Scene, plainly

__all__ = ["INTENTS", "Intent", "decide"]

_LONGEST_REQUEST = 1000
_LONGEST_ESSAY = 20_000
_LONGEST_COUNT = 100_000
_SPEEDS = ((r"\bvery\s+slowly\b", 1.0), (r"\bslow(?:ly)?\b", 5.0), (r"\b(?:fast|quickly)\b", 500.0))

Handler = Callable[[Scene, re.Match[str]], Reply]


class Intent(NamedTuple):
    """One thing that can be asked for."""

    pattern: re.Pattern[str]
    handle: Handler
    example: str
    about: str


def decide(scene: Scene) -> Reply:
    """What the agent does in this step."""
    if steps := calling.plan(scene):
        return calling.next_step(scene, steps)
    # Echoing is for texts of any length; all other patterns are for what a person writes.
    if match := ECHO.pattern.match(scene.request):
        return ECHO.handle(scene, match)
    if len(scene.request) <= _LONGEST_REQUEST:
        request = plainly(scene.request)
        for intent in INTENTS:
            if match := intent.pattern.search(request):
                return intent.handle(scene, match)
    return _unknown(scene)


def _unknown(scene: Scene) -> Reply:
    said = "" if scene.request else "There is no message to answer. "
    return Reply(
        text=f"{said}{scene.introduction} I do not understand free text; say `help` for what I can do.\n\n{scene.hint}"
    )


def _greet(scene: Scene, _: re.Match[str]) -> Reply:
    return Reply(text=f"Hello! {scene.introduction} Say `help` for what can be tried.\n\n{scene.hint}")


def _help(scene: Scene, _: re.Match[str]) -> Reply:
    lines = [f"{scene.introduction} This is what I understand:", ""]
    lines += [f"- `{intent.example}` - {intent.about}" for intent in INTENTS]
    phrases = [phrase for phrase in calling.PHRASES if phrase.tool in scene.tools]
    if phrases:
        lines += ["", "Tools, joined by `and` for one step or `then` for several:", ""]
        lines += [f"- `{phrase.example}` - calls `{phrase.tool}`" for phrase in phrases]
        lines += ['- `use tool NAME {"key": "value"}` - any tool, with these arguments']
    return Reply(text="\n".join([*lines, "", scene.hint]))


def _identity(scene: Scene, _: re.Match[str]) -> Reply:
    agent = scene.context.agent
    return Reply(text=f"{scene.introduction} {agent.description}\n\n{scene.hint}")


def _explain(scene: Scene, match: re.Match[str]) -> Reply:
    word = match["topic"].lower()
    return Reply(text=samples.TOPICS[_SYNONYMS.get(word, word)])


def _fail(scene: Scene, match: re.Match[str]) -> Reply:
    how = (match["how"] or "").lower()
    if how == "once":
        if scene.context.attempt > 1:
            return Reply(text=f"Attempt {scene.context.attempt} succeeded.")
        return Reply(error=AgentError("requested", "you asked for a failure that a retry heals", retryable=True))
    error = AgentError("requested", "you asked for a failure")
    return Reply(text="This sentence is the last one before the failure. " if how else "", error=error)


def _think(scene: Scene, match: re.Match[str]) -> Reply:
    topic = match["topic"].strip(" .!?")
    reasoning = (
        f"The user wants me to think about {topic}. First, what is it? Then, what speaks for it and what against? "
        "I have no model, so I weigh the words themselves: "
        + ", ".join(f"'{word}' has {len(word)} letters" for word in topic.split()[:12])
        + ". That will have to do."
    )
    return Reply(reasoning=reasoning, text=f"I have thought about {topic}, as far as fixed rules can think.")


def _write(scene: Scene, match: re.Match[str]) -> Reply:
    wanted = int(match["words"])
    topic = _without_speed(match["topic"] or "").strip(" .!?") or "nothing in particular"
    return Reply(
        text=samples.essay(topic, min(wanted, _LONGEST_ESSAY)),
        speed=_speed(scene.request),
        finish="length" if wanted > _LONGEST_ESSAY else "stop",
    )


def _count(scene: Scene, match: re.Match[str]) -> Reply:
    wanted = int(match["last"].replace(",", ""))
    return Reply(
        text=samples.numbers(min(wanted, _LONGEST_COUNT)),
        speed=_speed(scene.request),
        finish="length" if wanted > _LONGEST_COUNT else "stop",
    )


def _speed(request: str) -> float | None:
    """Tokens a second that the words of the request ask for."""
    if match := _PER_SECOND.search(request):
        return max(0.1, float(match[1]))
    return next((speed for pattern, speed in _SPEEDS if re.search(pattern, request, re.IGNORECASE)), None)


def _without_speed(topic: str) -> str:
    for pattern in (_PER_SECOND.pattern, *(pattern for pattern, _ in _SPEEDS)):
        topic = re.sub(pattern, "", topic, flags=re.IGNORECASE)
    return " ".join(topic.split())


def _sample(text: str) -> Handler:
    return lambda scene, match: Reply(text=text)


def _recall(answer: Callable[[Scene], str]) -> Handler:
    return lambda scene, match: Reply(text=answer(scene))


def _intent(pattern: str, handle: Handler, example: str, about: str) -> Intent:
    return Intent(re.compile(pattern, re.IGNORECASE | re.DOTALL), handle, example, about)


_PER_SECOND = re.compile(
    r"\bat\s+(\d{1,5}(?:\.\d{1,3})?)\s*(?:tokens?\s*)?(?:/|per\s+|a\s+)s(?:econd)?\b", re.IGNORECASE
)
_SHOW = r"^(?:show|give|send)\s+(?:me\s+)?(?:an?\s+|some\s+)?"
_SYNONYMS = {
    "websocket": "transport",
    "sse": "transport",
    "ndjson": "transport",
    "reconnect": "resume",
    "resuming": "resume",
    "cancelling": "cancel",
    "stop": "cancel",
    "steer": "queue",
    "interrupt": "queue",
    "hitl": "approval",
    "streaming": "delta",
    "handoff": "agent",
}
_TOPIC = "|".join([*samples.TOPICS, *_SYNONYMS])

ECHO = _intent(
    r"^echo\s(?P<text>.*)", lambda scene, match: Reply(text=match["text"]), "echo any text", "your own text, unchanged"
)

INTENTS = (
    _intent(r"^(?:help|\?+|what can (?:you|i) do|commands)\W*$", _help, "help", "this list"),
    _intent(
        r"^(?:explain|describe|tell me about|what (?:is|are)|how (?:do|does|can|to))\b.*?"
        rf"\b(?P<topic>{_TOPIC})(?:e?s|ing)?\b",
        _explain,
        "explain cursors",
        "how the server works: " + ", ".join(samples.TOPICS),
    ),
    ECHO,
    _intent(
        r"^count\s+(?:from\s+1\s+)?to\s+(?P<last>\d{1,3}(?:,\d{3})+|\d{1,9})\b",
        _count,
        "count to 200 slowly",
        "a long answer; also `quickly`, `very slowly`, `at 20 per second`",
    ),
    _intent(
        r"^write\s+(?:me\s+)?(?P<words>[1-9]\d{0,8})\s+words?(?:\s+(?:about|on)\s+(?P<topic>.+))?",
        _write,
        "write 500 words about rivers",
        "exactly that many words, at the speed you name",
    ),
    _intent(
        r"^think\s+(?:hard\s+)?about\s+(?P<topic>.+)",
        _think,
        "think about trees",
        "a stream of reasoning, then an answer",
    ),
    _intent(_SHOW + r"markdown\b", _sample(samples.MARKDOWN), "show markdown", "headings, lists, a table, code"),
    _intent(_SHOW + r"code(?:\s+block)?\b", _sample(samples.CODE), "show code", "a code block"),
    _intent(_SHOW + r"table\b", _sample(samples.TABLE), "show a table", "a Markdown table"),
    _intent(_SHOW + r"list\b", _sample(samples.LIST), "show a list", "a nested list"),
    _intent(_SHOW + r"(?:emojis?|unicode)\b", _sample(samples.EMOJI), "show emoji", "text beyond the basic plane"),
    _intent(
        r"^fail(?:\s+(?P<how>once|late))?\W*$",
        _fail,
        "fail",
        "a turn error; `fail late` says something first, `fail once` succeeds when it is retried",
    ),
    _intent(
        r"\bwhat\s+(?:did|have)\s+i\s+(?:say|said|write|written|ask)(?:\s+\w+)?\s+first\b|\bmy\s+first\s+message\b",
        _recall(recall.first),
        "what did I say first?",
        "your first message of this session",
    ),
    _intent(
        r"\bwhat\s+(?:did|have)\s+i\s+(?:just\s+)?(?:say|said|write|written|ask)|\bmy\s+last\s+message\b",
        _recall(recall.last),
        "what did I say last?",
        "your message before this one",
    ),
    _intent(r"\bhow\s+many\s+messages\b", _recall(recall.count), "how many messages", "the session so far, in numbers"),
    _intent(r"^(?:summari[sz]e|summary|recap)\b", _recall(recall.summary), "summarise", "what was said so far"),
    _intent(
        r"^(?:did\s+(?:i|you|we)\s+(?:mention|say)|have\s+we\s+talked\s+about"
        r"|(?:search|find|look)\s+(?:(?:in\s+)?(?:our|this|the)\s+(?:chat|conversation|history|session|messages)\s+)?for)"
        r"\s+(?P<words>.+)",
        lambda scene, match: Reply(text=recall.search(scene, match["words"])),
        "search for rivers",
        "the messages of this session that hold the words",
    ),
    _intent(
        r"^(?:who|what)\s+are\s+you\b|\bwhich\s+(?:model|agent)\b|\bconfigure\b",
        _identity,
        "who are you",
        "who answers here, and how to put a model in its place",
    ),
    _intent(
        r"^(?:hi|hello|hey|hallo|hola|bonjour|ciao|good\s+(?:morning|afternoon|evening|day))\b",
        _greet,
        "hello",
        "a greeting",
    ),
)
"""What is understood besides tool calls, in the order in which it is tried."""

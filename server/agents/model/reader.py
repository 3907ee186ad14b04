"""From the chunks of one answer to what an agent yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from server.agents.interface import AgentOutput, Finish, Reasoning, Text, ToolCallDelta, UsageReport
from server.agents.model.calls import Calls, TooLongError
from server.agents.model.chunks import DONE, CallPiece, Chunk, Delta, Halves, parse_chunk, parse_tokens
from server.agents.model.errors import ModelError, Where, as_refusal, invalid_answer, refused, shown
from server.agents.model.names import ToolNames

__all__ = ["AnswerReader"]

#: Why answers end, beside `stop` and the like: as OpenAI says it, and then Anthropic, Mistral, Google, Zhipu and
#: DeepSeek behind their own endpoints.
_LENGTH: Final = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
)
_FILTERED: Final = frozenset(
    {"content_filter", "safety", "recitation", "prohibited_content", "blocklist", "refusal", "sensitive"}
)
_BROKEN: Final = frozenset(
    {"error", "abort", "network_error", "insufficient_system_resource", "malformed_function_call"}
)
_QUOTED: Final = 120
_MOST_TOKENS: Final = 50_000_000


class AnswerReader:
    """Reads one answer.

    ``began``: something of it was yielded, so the request may not be repeated. ``finished``: the model has said why
    it stopped; only usage may follow. ``done``: nothing follows.
    """

    def __init__(self, where: Where, names: ToolNames) -> None:
        self.began = False
        self.done = False
        self._where = where
        self._names = names
        self._calls = Calls()
        self._halves = Halves()
        self._reason: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer itself is complete."""
        return self.done or self._reason is not None

    def feed(self, data: str) -> Iterator[AgentOutput]:
        """What one event's data says. Raises ModelError for an error in it, and for what is no chunk."""
        if data == DONE:
            self.done = True
            return
        try:
            chunk = parse_chunk(data)
        except ValueError as error:
            sent = shown(data, self._where)[:_QUOTED]
            raise invalid_answer(self._where, f"{shown(str(error), self._where)}, in {sent!r}") from None
        if chunk.error or chunk.object == "error":
            raise refused(as_refusal(chunk.error or _beside(chunk)), self._where)
        try:
            yield from self._read(chunk)
        except TooLongError:
            raise invalid_answer(self._where, "it calls a function without a name") from None

    def close(self) -> Finish:
        """How the answer ended. Raises ModelError when it did not, or when it cannot be used."""
        if not self.finished:
            how = "broke off in the middle of the answer" if self.began else "ended without an answer; try again"
            raise ModelError("model_stream_cut", f"{self._where.origin} {how}", retryable=True)
        if self._reason in _FILTERED:
            raise ModelError("model_content_filtered", f"{self._where.origin} held the answer back: its content filter")
        if self._reason in _BROKEN:
            raise refused(as_refusal(f"it stopped for {self._reason!r}"), self._where)
        if self._calls.unnamed():
            raise invalid_answer(self._where, "it calls a function without a name")
        if self._reason in _LENGTH:
            if self._calls.cut():
                text = f"the model {self._where.model} reached its token limit within a tool call; raise max_tokens"
                raise ModelError("model_output_limit", text, retryable=True, again=False)
            return Finish("length")
        return Finish("tool_calls" if len(self._calls) else "stop")

    def _read(self, chunk: Chunk) -> Iterator[AgentOutput]:
        for choice in chunk.choices or ():
            if choice.index:
                continue
            delta = choice.delta or choice.message
            for output in self._outputs(delta) if delta else ():
                self.began = True
                yield self._whole(output)
            self._reason = (choice.finish_reason or "").lower() or self._reason
        if chunk.usage is not None and (tokens := parse_tokens(chunk.usage)) is not None:
            yield UsageReport(_tokens(tokens.prompt_tokens), _tokens(tokens.completion_tokens))

    def _outputs(self, delta: Delta) -> Iterator[AgentOutput]:
        # Some send both, with the same text in each.
        if thought := delta.reasoning_content or (delta.reasoning if isinstance(delta.reasoning, str) else ""):
            yield Reasoning(thought)
        if isinstance(delta.content, str):
            if delta.content:
                yield Text(delta.content)
        elif delta.content:
            yield from _parts(delta.content)
        if delta.refusal:
            yield Text(delta.refusal)
        pieces = delta.tool_calls or []
        if delta.function_call is not None:
            pieces = [*pieces, CallPiece(index=0, function=delta.function_call)]
        for call in self._calls.add(pieces):
            yield call if call.name is None else self._renamed(call)

    def _whole(self, output: AgentOutput) -> AgentOutput:
        """The same without half a character; of arguments they are kept elsewhere."""
        if isinstance(output, Text | Reasoning):
            text = self._halves.join(type(output), output.text)
            return output if text is output.text else type(output)(text)
        return output

    def _renamed(self, call: ToolCallDelta) -> ToolCallDelta:
        return ToolCallDelta(call.index, call.call_id, self._names.ours(call.name or ""), call.arguments)


def _tokens(count: int | None) -> int:
    """A number of tokens that can be counted with, whatever was sent."""
    return min(max(count or 0, 0), _MOST_TOKENS)


def _parts(parts: list[Any]) -> Iterator[AgentOutput]:
    """Content in parts: texts, and thoughts that hold texts themselves."""
    for part in parts:
        if isinstance(part, str) and part:
            yield Text(part)
        elif isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            yield from (
                Reasoning(output.text)
                for output in _parts(inner if isinstance(inner, list) else [inner])
                if isinstance(output, Text)
            )
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"]:
            yield Text(part["text"])


def _beside(chunk: Chunk) -> dict[str, Any]:
    """The error of a chunk that is one itself."""
    return {"message": chunk.message, "code": chunk.code}

"""What a model endpoint refuses or breaks, as errors that tell people what to do."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from protocol.values import clean_text
from server.agents.interface import AgentError

__all__ = ["ModelError", "Refusal", "Where", "invalid_answer", "read_refusal", "refused", "shown"]

_LONGEST: Final = 500
_SEARCHED: Final = 20_000
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\u061c\ufeff]+")
#: As OpenAI, Anthropic, Bedrock, Mistral, vLLM, llama.cpp and LM Studio word it; then Google, xAI, Groq and TGI.
_CONTEXT: Final = re.compile(
    r"context[ _](?:length|size|window)|maximum context|too many tokens|prompt is too long|input is too long|"
    r"token count.{1,40}exceeds|maximum prompt length|reduce the length of the messages|max_new_tokens. must be",
    re.IGNORECASE,
)
_NO_TOOLS: Final = re.compile(r"(?:does not|doesn't|not) support (?:tool|function)|that support tool", re.IGNORECASE)
_FILTER: Final = re.compile(r"content_filter|content management policy|data_inspection_failed", re.IGNORECASE)
_QUOTA: Final = re.compile(r"insufficient_quota|billing|exceeded your current quota", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]{3}")


class ModelError(AgentError):
    """A step that the endpoint did not finish.

    ``again`` says whether the request is worth repeating by itself, before anything of the answer was seen;
    ``retry_after`` is how many seconds the endpoint wants to be left alone before that.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        again: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, message, retryable=retryable)
        self.again = retryable if again is None else again
        self.retry_after = retry_after


class Where(Struct, frozen=True):
    """Who was asked for what: for the texts of errors."""

    origin: str
    model: str
    has_key: bool
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Where(origin={self.origin!r}, model={self.model!r})"


class Refusal(Struct, frozen=True):
    """What an endpoint says about an error; ``status`` is HTTP's, or its like in the body, if there is any."""

    message: str = ""
    kind: str = ""
    status: int | None = None


def read_refusal(body: bytes | str, status: int | None = None) -> Refusal:
    """An error body in any of the shapes that are about: OpenAI's, vLLM's, Ollama's, Gemini's, FastAPI's, or none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        return Refusal("" if text.lstrip().startswith("<") else text, "", status)
    return as_refusal(value, status)


def as_refusal(value: Any, status: int | None = None) -> Refusal:
    """The same for a body that is decoded."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and value.get("error"):
        value = value["error"]
    if not isinstance(value, dict):
        return Refusal(value if isinstance(value, str) else "", "", status)
    message = value.get("message") or value.get("detail") or value.get("error") or ""
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    kinds = [value.get(key) for key in ("code", "type", "status")]
    if status is None:
        status = next(filter(None, map(_as_status, kinds)), None)
    return Refusal(message, " ".join(kind for kind in kinds if isinstance(kind, str)), status)


def shown(text: str, where: Where) -> str:
    """An endpoint's text as people may see it: one line, bounded, without anything secret."""
    for secret in where.secrets:
        text = text.replace(secret, "***")
    text = _CONTROL.sub(" ", clean_text(text[: 4 * _LONGEST])).strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"


def refused(refusal: Refusal, where: Where, retry_after: float | None = None) -> ModelError:
    """The error for a request that was refused, by its words if they tell, and else by its status."""
    said = shown(refusal.message, where)
    because = f": {said}" if said else ""
    status, words = refusal.status, f"{refusal.kind} {refusal.message[:_SEARCHED]}"
    if (error := _by_words(words, status, where, because)) is not None:
        return error
    if status == 429 or (status is None and "rate_limit" in words):
        wait = f"try again in {retry_after:.0f} s" if retry_after else "try again later"
        text = f"{where.origin} gets too many requests; {wait}{because}"
        return ModelError("model_rate_limited", text, retryable=True, retry_after=retry_after)
    if status in (408, 409, 425) or (status is not None and status >= 500) or "overloaded" in refusal.kind:
        text = f"{where.origin} is out of order ({status or 'overloaded'}); try again later{because}"
        return ModelError("model_unavailable", text, retryable=True, retry_after=retry_after)
    return _by_status(status, where, because)


def _by_words(words: str, status: int | None, where: Where, because: str) -> ModelError | None:
    """What statuses do not tell apart."""
    if status == 413 or (status in (None, 400, 422) and _CONTEXT.search(words)):
        advice = "say it in parts, start a new session, or use a model that takes more"
        return ModelError("model_context_exceeded", f"this is too long for the model {where.model}; {advice}{because}")
    if status == 402 or (status in (None, 403, 429) and _QUOTA.search(words)):
        return ModelError("model_quota_exhausted", f"the account at {where.origin} has no credit left{because}")
    if _NO_TOOLS.search(words):
        text = f"the model {where.model} cannot call tools at {where.origin}; choose another model, or another agent"
        return ModelError("model_refused", f"{text}, or give this one none (agents.overrides: tools = []){because}")
    if status in (None, 400, 403) and _FILTER.search(words):
        return ModelError("model_content_filtered", f"{where.origin} does not answer this: its content filter{because}")
    return None


def _by_status(status: int | None, where: Where, because: str) -> ModelError:
    """What a repetition would not change."""
    match status:
        case 401 | 407:
            wrong = "does not accept the key; check" if where.has_key else "wants a key; set"
            return ModelError(
                "model_unauthorized", f"{where.origin} {wrong} model.api_key (or PARLEY_MODEL_API_KEY){because}"
            )
        case 403:
            text = f"the key may not use the model {where.model} at {where.origin}; check its rights{because}"
            return ModelError("model_forbidden", text)
        case 404 | 405:
            text = f"{where.origin} does not have the model {where.model}, or model.base_url is wrong{because}"
            return ModelError("model_not_found", text)
        case int() if status < 400:
            return ModelError("model_not_found", f"{where.origin} redirects; set model.base_url to where it does")
        case int():
            return ModelError("model_refused", f"{where.origin} refused the request ({status}){because}")
        case _:
            text = f"{where.origin} ended the answer with an error{because}"
            return ModelError("model_failed", text, retryable=True)


def invalid_answer(where: Where, what: str) -> ModelError:
    """The endpoint answers in no form that a chat completion has."""
    text = f"{where.origin} does not answer as a chat completions endpoint does ({what}); check model.base_url"
    return ModelError("model_invalid_answer", text)


def _as_status(value: object) -> int | None:
    """HTTP's status in a body, as a number or a text; other codes are words."""
    status = int(value) if isinstance(value, int | str) and _DIGITS.fullmatch(str(value)) else 0
    return status if 400 <= status < 600 else None

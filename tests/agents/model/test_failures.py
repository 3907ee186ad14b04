"""What endpoints refuse and break: the errors that people read, what is tried again, and what is let go."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from server.agents.interface import Finish, Text, UsageReport
from server.agents.model import agent as agent_module
from server.agents.model import endpoint as endpoint_module
from server.agents.model.agent import ModelAgent
from server.agents.model.endpoint import Endpoint
from server.agents.model.errors import ModelError, Refusal, Where, read_refusal, refused, shown
from server.agents.model.retry import LONGEST_WAIT, pause, read_retry_after
from server.agents.model.settings import ModelSettings
from tests.agents.model.support import CODER, KEY, bench
from tests.agents.support import context, run
from tests.support.model_endpoint import answer, chunk, event, stream, text

#: Nothing here takes so long, on a busy machine neither; it is what a hang costs. Seconds.
PATIENCE = 40.0
WHERE = Where("http://model.test", "test-model", has_key=True, secrets=(KEY,))


# --- refusals


@pytest.mark.feature("A06")
@pytest.mark.parametrize(
    ("status", "said", "code", "advice"),
    [
        (400, "messages[3] is wrong", "model_refused", "messages[3] is wrong"),
        (422, "no such field", "model_refused", "no such field"),
        (400, "This model's maximum context length is 8192 tokens", "model_context_exceeded", "start a new session"),
        (413, "", "model_context_exceeded", "start a new session"),
        (401, "Incorrect API key", "model_unauthorized", "check model.api_key"),
        (402, "pay", "model_quota_exhausted", "no credit"),
        (403, "not yours", "model_forbidden", "check its rights"),
        (404, "no such model", "model_not_found", "model.base_url"),
        (405, "", "model_not_found", "model.base_url"),
        (307, "", "model_not_found", "redirects"),
        (418, "teapot", "model_refused", "teapot"),
        (400, "registry.ollama.ai/library/gemma:2b does not support tools", "model_refused", "tools = []"),
        (404, "No endpoints found that support tool use", "model_refused", "choose another model"),
        (400, "The response was filtered by our content management policy", "model_content_filtered", "its content"),
    ],
)
async def test_a_refusal_says_what_to_do_and_is_not_tried_again(status: int, said: str, code: str, advice: str) -> None:
    async with bench() as one:
        one.fake.refuse(status, said)
        error = await one.failure()
        assert (error.code, error.retryable) == (code, False)
        assert advice in error.message
        assert said in error.message
        assert len(one.fake.asked) == 1
        assert one.clock.sleeps == []


@pytest.mark.parametrize(
    "said",
    [
        "Your input exceeds the context window of this model.",
        "prompt is too long: 213462 tokens > 200000 maximum",
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "Please reduce the length of the messages or completion.",
        "the request exceeds the available context size, try increasing it",
        "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000",
        "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    ],
)
def test_too_long_is_said_in_many_words(said: str) -> None:
    assert refused(Refusal(said, "", 400), WHERE).code == "model_context_exceeded"
    # But not by who counts tokens by the minute.
    assert refused(Refusal(said, "", 429), WHERE).code == "model_rate_limited"


async def test_without_a_key_the_advice_is_to_give_one() -> None:
    async with bench(api_key=None) as one:
        one.fake.refuse(401)
        assert "wants a key; set model.api_key" in (await one.failure()).message


async def test_what_an_endpoint_says_is_bounded_clean_and_without_the_key() -> None:
    async with bench() as one:
        one.fake.refuse(400, f"bad\x00 \x1b[31mkey\u202e {KEY}\n" + "x" * 10_000)
        message = (await one.failure()).message
    assert len(message) < 700
    assert message.isprintable()
    assert "*** xxx" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "a", "type": "t"}}', "a"),
        (b'{"error": "b"}', "b"),
        (b'[{"error": {"code": 400, "message": "c", "status": "INVALID_ARGUMENT"}}]', "c"),
        (b'{"object": "error", "message": "d", "code": 400}', "d"),
        (b'{"detail": [{"loc": ["body"], "msg": "e"}]}', '[{"loc":["body"],"msg":"e"}]'),
        (b"f", "f"),
        (b"<html>502 Bad Gateway</html>", ""),
        (b"", ""),
        (b"[]", ""),
        (b"7", ""),
        (b"[" * 100_000, "[" * 500),
    ],
)
def test_errors_have_many_shapes(body: bytes, said: str) -> None:
    refusal = read_refusal(body, 400)
    assert refusal.message.startswith(said)
    assert refused(refusal, WHERE).code == "model_refused"


def test_a_secret_is_nowhere_to_be_seen() -> None:
    settings = ModelSettings(
        model="m",
        api_key=KEY,
        base_url="https://x.test/v1?sig=hush-hush",
        extra_headers={"a": "Bearer psst-psst"},
    )
    where = Endpoint(settings).where("m")
    texts = (repr(settings), repr(where), shown(f"{KEY} hush-hush psst-psst", where))
    assert not any(secret in text for text in texts for secret in (KEY, "hush", "psst"))


# --- trying again


@pytest.mark.feature("A06")
async def test_who_is_asked_to_wait_waits_and_goes_on() -> None:
    async with bench() as one:
        one.fake.refuse(429, "slow down", Retry_After="7")
        one.fake.reply(*answer("at ", "last"))
        assert (await one.step()).text == "at last"
        assert one.clock.sleeps == [7.25]


async def test_the_end_of_the_wait_may_be_a_date() -> None:
    async with bench() as one:
        one.fake.refuse(503, "soon", Retry_After="Fri, 02 Jan 2026 03:04:35 GMT")
        one.fake.reply(*answer("x"))
        await one.step()
        assert one.clock.sleeps == [30.25]


async def test_who_is_asked_to_wait_too_long_is_told_when_to_try() -> None:
    async with bench() as one:
        one.fake.refuse(429, "see you tomorrow", Retry_After="3600")
        error = await one.failure()
        assert (error.code, error.retryable, error.retry_after) == ("model_rate_limited", True, 3600)
        assert "try again in 3600 s" in error.message
        assert one.clock.sleeps == []


async def test_no_credit_is_not_waited_for() -> None:
    async with bench() as one:
        body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
        one.fake.reply(msgspec.json.encode(body), status=429)
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_quota_exhausted", False)


@pytest.mark.feature("A06")
async def test_an_endpoint_that_was_out_of_order_for_a_moment_is_asked_again() -> None:
    async with bench() as one:
        one.fake.refuse(500, "oops")
        one.fake.reply(*answer("fine"))
        assert (await one.step()).text == "fine"
        assert one.clock.sleeps == [0.25]
        assert one.fake.asked[0].body == one.fake.asked[1].body


async def test_regression_09_tries_are_counted_and_their_last_error_is_told() -> None:
    async with bench(max_retries=3) as one:
        for status in (500, 502, 503, 504, 500):
            one.fake.refuse(status, f"number {status}")
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_unavailable", True)
        assert "number 504" in error.message
        assert one.clock.sleeps == [0.25, 0.5, 1.0]


async def test_an_error_in_the_stream_before_its_first_token_is_one_of_the_request() -> None:
    async with bench() as one:
        one.fake.reply(event({"error": {"message": "Overloaded", "code": 529}}))
        one.fake.reply(b": waiting\n\n", *stream(chunk(role="assistant"), done=False), then="cut")
        one.fake.reply(*answer("fine"))
        assert (await one.step()).text == "fine"


def test_pauses_grow_are_spread_and_are_bounded() -> None:
    longest = [pause(failures, jitter=lambda: 1.0) for failures in range(1, 8)]
    assert longest == [0.5, 1, 2, 4, 8, 8, 8]
    assert pause(3, jitter=lambda: 0.0) == 0
    assert pause(1, LONGEST_WAIT, jitter=lambda: 0.0) == LONGEST_WAIT
    assert pause(1, LONGEST_WAIT + 1) is None
    assert all(0 <= (pause(2) or 0) <= 1 for _ in range(100))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "5", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}, 60.0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:05:05"}, 60.0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Fri, 99 Jan 2026 03:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == seconds


# --- endpoints that do not know how to report usage in a stream


@pytest.mark.parametrize("said", ["Unknown parameter: stream_options", "Extra inputs are not permitted"])
async def test_who_refuses_stream_options_is_asked_without_and_never_with_them_again(said: str) -> None:
    async with bench() as one:
        one.fake.refuse(400, said)
        one.fake.reply(*stream(text("fine"), chunk("stop")))
        one.fake.reply(*answer("again"))
        assert not any(isinstance(output, UsageReport) for output in (await one.step()).outputs)
        assert (await one.step()).text == "again"
        assert ["stream_options" in asked.body for asked in one.fake.asked] == [True, False, False]
        assert one.clock.sleeps == []


async def test_who_refuses_something_else_is_still_asked_for_usage_the_next_time() -> None:
    async with bench() as one:
        one.fake.refuse(400, "unknown parameter: sede")
        one.fake.refuse(400, "unknown parameter: sede")
        assert "sede" in (await one.failure()).message
        one.fake.reply(*answer("x"))
        await one.step()
        assert ["stream_options" in asked.body for asked in one.fake.asked] == [True, False, True]


# --- answers that break


@pytest.mark.feature("A06", "A01")
@pytest.mark.parametrize("then", ["cut", "end"])
async def test_regression_14_an_answer_that_is_cut_is_an_error_and_not_tried_again(then: Any) -> None:
    async with bench() as one:
        one.fake.reply(*stream(text("half an ans"), done=False), then=then)
        outputs = aiter(one.agent.run(one.context()))
        assert await anext(outputs) == Text("half an ans")
        with pytest.raises(ModelError, match="in the middle of the answer") as caught:
            await anext(outputs)
        assert (caught.value.code, caught.value.retryable) == ("model_stream_cut", True)
        assert len(one.fake.asked) == 1


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ({"error": {"message": "boom", "type": "server_error"}}, "model_failed", True),
        ({"error": {"message": "boom", "code": 500}}, "model_unavailable", True),
        ({"error": {"message": "boom", "code": "rate_limit_exceeded"}}, "model_rate_limited", True),
        ({"error": {"message": "boom", "code": "429"}}, "model_rate_limited", True),
        ({"error": "boom"}, "model_failed", True),
        ({"object": "error", "message": "boom", "code": 400}, "model_refused", False),
        ({"error": {"message": "boom: context_length_exceeded"}}, "model_context_exceeded", False),
        ({"error": {"message": "boom"}, "choices": [{"finish_reason": "error"}]}, "model_failed", True),
    ],
)
async def test_an_error_in_mid_stream(error: Any, code: str, retryable: bool) -> None:
    async with bench() as one:
        one.fake.reply(*stream(text("so"), error))
        failure = await one.failure()
        assert (failure.code, failure.retryable) == (code, retryable)
        assert "boom" in failure.message


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("content_filter", "model_content_filtered"),
        ("SAFETY", "model_content_filtered"),
        ("sensitive", "model_content_filtered"),
        ("error", "model_failed"),
        ("network_error", "model_failed"),
        ("insufficient_system_resource", "model_failed"),
    ],
)
async def test_reasons_that_are_errors(reason: str, code: str) -> None:
    async with bench() as one:
        one.fake.reply(*stream(text("so"), chunk(reason)))
        assert (await one.failure()).code == code


@pytest.mark.parametrize(
    "data",
    [b"nonsense", b'{"choices": [{"delta": {"content": 7}}]}', b"[1]", b'{"choices": 1}', b'"' + KEY.encode() + b'"'],
)
async def test_what_is_no_chunk_is_told_with_what_it_is(data: bytes) -> None:
    async with bench() as one:
        one.fake.reply(b"data: " + data + b"\n\n")
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_invalid_answer", False)
        assert "check model.base_url" in error.message


@pytest.mark.parametrize(
    ("kind", "said"), [("text/html; charset=utf-8", "an HTML page"), ("application/x-ndjson", "x-ndjson")]
)
async def test_other_contents_are_refused(kind: str, said: str) -> None:
    async with bench() as one:
        one.fake.reply(b"<html>Sign in</html>", headers={"Content-Type": kind})
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_invalid_answer", False)
        assert said in error.message


async def test_a_body_without_any_event_is_no_answer() -> None:
    async with bench(max_retries=0) as one:
        one.fake.reply(b"Sign in first", headers={"Content-Type": "text/plain"})
        assert "ended without an answer" in (await one.failure()).message


async def test_a_function_without_a_name_is_no_call() -> None:
    async with bench() as one:
        one.fake.reply(*stream(chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]), chunk("tool_calls")))
        assert "without a name" in (await one.failure()).message


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_MAX_EVENT_BYTES", 10_000)
    for body, kind in ((b"data: " + b"x" * 20_000, "text/event-stream"), (b'"' + b"x" * 20_000, "application/json")):
        async with bench() as one:
            one.fake.reply(body, headers={"Content-Type": kind})
            assert (await one.failure()).code == "model_invalid_answer"


# --- time


async def test_a_first_token_that_does_not_come() -> None:
    async with bench(timeout_first_token=1.0) as one:
        one.fake.reply(then="hang")
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_timeout", True)
        assert "model.timeout_first_token" in error.message
        assert len(one.fake.asked) == 1
        await asyncio.wait_for(one.fake.left.wait(), PATIENCE)


async def test_comments_and_roles_are_no_first_token() -> None:
    async with bench(timeout_first_token=0.2, timeout_idle=100) as one:
        one.fake.reply(b": queued\n\n", *stream(chunk(role="assistant", content=""), done=False), then="hang")
        assert "model.timeout_first_token" in (await one.failure()).message


async def test_silence_in_the_middle_of_an_answer() -> None:
    async with bench(timeout_first_token=100, timeout_idle=0.05) as one:
        one.fake.reply(*stream(text("so"), done=False), then="hang")
        error = await one.failure()
        assert (error.code, error.retryable) == ("model_timeout", True)
        assert "model.timeout_idle" in error.message
        await asyncio.wait_for(one.fake.left.wait(), PATIENCE)


@pytest.mark.feature("A06")
async def test_a_cancelled_answer_closes_its_connection_at_once() -> None:
    async with bench() as one:
        one.fake.reply(*stream(text("so"), done=False), then="hang")
        async with aclosing(cast("Any", one.agent.run(one.context()))) as outputs:
            assert await anext(outputs) == Text("so")
        await asyncio.wait_for(one.fake.left.wait(), PATIENCE)


async def test_cancelling_while_nothing_has_come_closes_the_connection_too() -> None:
    async with bench() as one:
        one.fake.reply(then="hang")
        task = asyncio.create_task(one.step())
        await asyncio.wait_for(one.fake.hanging.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(one.fake.left.wait(), PATIENCE)


async def test_who_waits_for_a_free_connection_is_not_late() -> None:
    async with bench(max_connections=1, timeout_first_token=PATIENCE) as one:
        one.fake.reply(then="hang")
        one.fake.reply(*answer("mine"))
        first = asyncio.create_task(one.step())
        await asyncio.wait_for(one.fake.hanging.wait(), PATIENCE)
        second = asyncio.create_task(one.step())
        await asyncio.sleep(0)
        assert len(one.fake.asked) == 1
        first.cancel()
        assert (await second).text == "mine"
        await asyncio.gather(first, return_exceptions=True)


async def test_comments_keep_no_finished_answer_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "_GRACE", 0.05)
    async with bench() as one:
        one.fake.reply(*stream(text("so"), chunk("stop"), done=False), then="chatter")
        assert (await one.step()).outputs == [Text("so"), Finish("stop")]
        await asyncio.wait_for(one.fake.left.wait(), PATIENCE)


# --- no connection


def settings_for(port: int, scheme: str = "http", timeout: float = PATIENCE) -> ModelSettings:
    return ModelSettings(model="m", base_url=f"{scheme}://127.0.0.1:{port}/v1", max_retries=0, timeout_connect=timeout)


async def failure_of(settings: ModelSettings) -> Any:
    endpoint = Endpoint(settings)
    agent = ModelAgent(CODER, endpoint)
    try:
        with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
            await run(agent, context(agent, "Hello"))
        return caught.value
    finally:
        await endpoint.stop()


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await failure_of(settings_for(free.getsockname()[1]))
    assert (error.code, error.retryable) == ("model_unreachable", True)
    assert "does it run" in error.message


async def test_a_connection_is_closed_without_an_answer() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        error = await failure_of(settings_for(server.sockets[0].getsockname()[1]))
    assert (error.code, error.retryable) == ("model_unavailable", True)


async def test_what_speaks_no_tls_is_told_apart() -> None:
    async with bench() as one:
        error = await failure_of(settings_for(int(one.fake.url.split(":")[2].split("/")[0]), "https"))
    assert (error.code, error.retryable) == ("model_tls_failed", False)


async def test_a_handshake_that_does_not_end_is_a_connection_that_is_not_made() -> None:
    silent = asyncio.Event()

    async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with server:
        error = await failure_of(settings_for(server.sockets[0].getsockname()[1], "https", timeout=0.05))
        silent.set()
    assert (error.code, error.retryable) == ("model_timeout", True)
    assert "no connection" in error.message


async def test_a_stopped_endpoint_opens_nothing_again() -> None:
    async with bench() as one:
        await one.endpoint.stop()
        assert "shutting down" in (await one.failure()).message
        await one.endpoint.stop()

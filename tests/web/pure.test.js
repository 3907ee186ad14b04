// The parts of parley.js that touch nothing outside themselves.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  Backoff, Conversation, MessageText, Outbox, ParleyError, Sequencer, SseParser, TransportChoice, judge, parseCursor,
} from "../../server/web/parley.js";

const delta = (offset, text, more = {}) => ({ message_id: "m", attempt: 1, part: "content", offset, text, ...more });
const durable = (seq, epoch = "e") => ({ seq, cursor: `${epoch}.${seq}` });

describe("cursors", () => {
  it("are an epoch and a number, or a bare number", () => {
    assert.deepEqual(parseCursor("a.b.12"), { epoch: "a.b", seq: 12 });
    assert.deepEqual(parseCursor(0), { epoch: null, seq: 0 });
    assert.throws(() => parseCursor("e.x"), ParleyError);
    assert.throws(() => parseCursor("e.-1"), ParleyError);
  });
});

describe("Sequencer", () => {
  it("lets every event through once", () => {
    const sequencer = new Sequencer("e.3");
    assert.deepEqual([3, 4, 4, 5].map((seq) => sequencer.accept(durable(seq))), ["duplicate", "deliver", "duplicate", "deliver"]);
    assert.equal(sequencer.cursor, "e.5");
  });

  it("notices a hole between events", () => {
    const sequencer = new Sequencer(0);
    sequencer.connected("e.0");
    sequencer.accept(durable(1));
    assert.equal(sequencer.accept(durable(3)), "gap");
    assert.equal(sequencer.cursor, "e.1");
  });

  it("notices a hole at the end of the replay", () => {
    const sequencer = new Sequencer("e.1");
    assert.equal(sequencer.complete("e.2"), false);
    sequencer.accept(durable(2));
    assert.equal(sequencer.complete("e.2"), true);
  });

  it("begins where connected says when it had no place", () => {
    const sequencer = new Sequencer();
    assert.equal(sequencer.cursor, null);
    assert.equal(sequencer.connected("e.7"), false);
    assert.equal(sequencer.accept(durable(8)), "deliver");
  });

  it("keeps its own place when connected repeats an older one", () => {
    const sequencer = new Sequencer("e.9");
    sequencer.connected("e.4");
    assert.equal(sequencer.accept(durable(5)), "duplicate");
  });

  it("tells another log from its own", () => {
    const sequencer = new Sequencer("e.9");
    assert.equal(sequencer.accept(durable(10, "f")), "gap");
    assert.equal(sequencer.connected("f.2"), true);
    assert.equal(sequencer.accept(durable(3, "f")), "deliver");
  });
});

describe("MessageText", () => {
  it("appends what it lacks, and only that", () => {
    const text = new MessageText();
    assert.equal(text.apply(delta(0, "Hel")), "appended");
    assert.equal(text.apply(delta(0, "Hel")), "ignored");
    assert.equal(text.apply(delta(1, "ello")), "appended");
    assert.equal(text.apply(delta(9, "!")), "gap");
    assert.equal(text.content, "Hello");
    assert.equal(text.apply(delta(0, "Hello, world")), "appended");
    assert.equal(text.content, "Hello, world");
  });

  it("starts afresh with a higher attempt and ignores lower ones", () => {
    const text = new MessageText();
    text.apply(delta(0, "first"));
    assert.equal(text.apply(delta(0, "second", { attempt: 2 })), "restarted");
    assert.equal(text.apply(delta(5, " more")), "ignored");
    assert.equal(text.content, "second");
    assert.equal(text.apply(delta(4, "late", { attempt: 3 })), "restarted");
    assert.equal(text.content, "");
  });

  it("counts as the wire does, in UTF-16 code units", () => {
    const text = new MessageText();
    text.apply(delta(0, "a😀"));
    assert.equal(text.apply(delta(3, "b")), "appended");
    assert.equal(text.content, "a😀b");
  });

  it("keeps reasoning and each call's arguments apart", () => {
    const text = new MessageText();
    text.apply(delta(0, "hm", { part: "reasoning" }));
    text.apply(delta(0, "{", { part: "arguments", call_id: "a" }));
    text.apply(delta(0, "[", { part: "arguments", call_id: "b" }));
    text.apply(delta(1, "}", { part: "arguments", call_id: "a" }));
    assert.equal(text.reasoning, "hm");
    assert.deepEqual(text.calls, [{ call_id: "a", arguments: "{}" }, { call_id: "b", arguments: "[" }]);
    assert.equal(text.content, "");
  });

  it("is the same text however the deltas were cut, repeated or merged", () => {
    const whole = "The quick 😀 fox";
    const cuts = [[0, 4], [2, 9], [0, 2], [9, 12], [4, 16], [12, 16], [0, 16]];
    const text = new MessageText();
    for (const [from, to] of cuts) text.apply(delta(from, whole.slice(from, to)));
    assert.equal(text.content, whole);
  });
});

describe("Backoff", () => {
  it("never waits less than its floor nor more than its ceiling", () => {
    for (const random of [() => 0, () => 0.5, () => 0.999]) {
      const backoff = new Backoff({ random });
      for (let attempt = 0; attempt < 40; attempt += 1) {
        const wait = backoff.next();
        assert.ok(wait >= 500 && wait <= 20_000, `${wait}`);
      }
    }
  });

  it("grows, and begins again after a reset", () => {
    const backoff = new Backoff({ random: () => 1 });
    assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [1000, 2000, 4000]);
    backoff.reset();
    assert.equal(backoff.next(), 1000);
  });

  it("is never earlier than the server asked, and not at the same instant as everybody else", () => {
    assert.equal(new Backoff({ random: () => 0 }).next(3000), 3000);
    assert.equal(new Backoff({ random: () => 1 }).next(3000), 4500);
  });
});

describe("judge", () => {
  it("reads the range of a close code", () => {
    for (const code of [1000, 1001, 1005, 1006, 1011, 4000, 4006, 4499]) assert.equal(judge({ code }, null).reconnect, true, `${code}`);
    for (const code of [1002, 1007, 1009, 4500, 4504, 4999]) assert.equal(judge({ code }, null).reconnect, false, `${code}`);
  });

  it("reads the answer to a refused stream", () => {
    for (const status of [200, 429, 500, 503]) assert.equal(judge({ status }, null).reconnect, true, `${status}`);
    for (const status of [204, 400, 401, 403, 404, 410]) assert.equal(judge({ status }, null).reconnect, false, `${status}`);
    assert.equal(judge({ status: 401 }, null).code, "unauthorized");
    assert.equal(judge({ status: 503, retryAfterMs: 2000 }, null).retryAfterMs, 2000);
  });

  it("believes the in-band advice above all", () => {
    assert.equal(judge({ code: 1006 }, { reconnect: false, code: "session_gone" }).reconnect, false);
    assert.equal(judge({ code: 4500 }, { reconnect: true, retry_after_ms: 70 }).retryAfterMs, 70);
  });

  it("finds the wait in a close reason", () => {
    assert.equal(judge({ code: 4000, reason: '{"code":"shutdown","retry_after_ms":1500}' }, null).retryAfterMs, 1500);
    assert.equal(judge({ code: 4000, reason: "shutdown retry_after_ms=250" }, null).retryAfterMs, 250);
  });
});

describe("TransportChoice", () => {
  const memory = (value = null) => ({ load: () => value, save(next) { value = next; }, get value() { return value; } });

  it("tries WebSocket first and SSE as soon as the upgrade fails", () => {
    const choice = new TransportChoice();
    assert.equal(choice.pick(), "websocket");
    assert.equal(choice.failed("websocket", "opening"), true);
    assert.equal(choice.pick(), "sse");
  });

  it("falls back from a socket that is cut twice before sync", () => {
    const choice = new TransportChoice();
    assert.equal(choice.failed("websocket", "syncing"), false);
    assert.equal(choice.failed("websocket", "syncing"), true);
    assert.equal(choice.pick(), "sse");
  });

  it("gives a socket that worked before more chances: the server is away", () => {
    const choice = new TransportChoice();
    choice.worked("websocket");
    choice.stable();
    const switched = ["live", "opening", "opening"].map((phase) => choice.failed("websocket", phase));
    assert.deepEqual(switched, [false, false, true]);
  });

  it("lets the two take turns while neither works", () => {
    const choice = new TransportChoice();
    const tried = [];
    for (let turn = 0; turn < 4; turn += 1) {
      tried.push(choice.pick());
      choice.failed(choice.pick(), "opening");
    }
    assert.deepEqual(tried, ["websocket", "sse", "websocket", "sse"]);
  });

  it("remembers that only SSE worked, and tries WebSocket again some minutes later", () => {
    let now = 0;
    const store = memory();
    const first = new TransportChoice({ memory: store, now: () => now });
    first.failed("websocket", "opening");
    first.worked("sse");
    now = 60_000;
    const second = new TransportChoice({ memory: store, now: () => now });
    assert.equal(second.pick(), "sse");
    second.worked("sse");
    second.failed("sse", "live");
    assert.equal(second.pick(), "sse");
    now = 400_000;
    second.ended();
    assert.equal(second.pick(), "websocket");
    assert.equal(new TransportChoice({ memory: store, now: () => 1_000_000 }).pick(), "websocket");
  });

  it("keeps to the transport that was asked for", () => {
    const choice = new TransportChoice({ mode: "websocket" });
    for (let turn = 0; turn < 9; turn += 1) assert.equal(choice.failed("websocket", "opening"), false);
    assert.equal(choice.pick(), "websocket");
    assert.equal(new TransportChoice({ mode: "sse" }).pick(), "sse");
  });
});

describe("Outbox", () => {
  const entry = (id) => ({ type: "user_message", id });

  it("has one command under way, in order", async () => {
    const outbox = new Outbox();
    const promises = ["a", "b"].map((id) => outbox.add(entry(id)));
    assert.equal(outbox.take().id, "a");
    assert.equal(outbox.take(), null);
    assert.equal(outbox.acknowledge({ id: "a", status: "ok" }), true);
    assert.equal(outbox.take().id, "b");
    outbox.acknowledge({ id: "b", status: "ok" });
    assert.deepEqual((await Promise.all(promises)).map((ack) => ack.id), ["a", "b"]);
    assert.equal(outbox.acknowledge({ id: "b", status: "ok" }), false);
  });

  it("sends again with the same id what may have been lost", () => {
    const outbox = new Outbox();
    outbox.add(entry("a"));
    outbox.add(entry("b"));
    outbox.take();
    outbox.rewind();
    assert.equal(outbox.take().id, "a");
  });

  it("takes one id for one command", () => {
    const outbox = new Outbox();
    assert.equal(outbox.add(entry("a")), outbox.add(entry("a")));
    assert.equal(outbox.size, 1);
  });

  it("repeats a refusal that may pass, a bounded number of times", async () => {
    const outbox = new Outbox(() => new Backoff({ random: () => 0 }));
    const promise = outbox.add(entry("a"));
    const busy = new ParleyError("unavailable", "the database is away", { retryAfterMs: 1000 });
    let repeats = 0;
    for (; outbox.take() && outbox.refuse("a", busy) !== null; repeats += 1) outbox.rewind();
    assert.equal(repeats, 7);
    await assert.rejects(promise, busy);
  });

  it("tells the caller at once about a refusal that will not pass, also one without an id", async () => {
    const outbox = new Outbox();
    const promise = outbox.add(entry("a"));
    outbox.take();
    assert.equal(outbox.refuse(undefined, new ParleyError("invalid", "no such field", { path: "$.x" })), null);
    await assert.rejects(promise, (error) => error.code === "invalid" && error.path === "$.x");
  });
});

describe("SseParser", () => {
  const text = ": hello\r\nid: e.1\r\nevent: message_created\r\ndata: {\"a\":\r\ndata: \"héllo 😀 – 文字\"}\r\n\r\n"
    + "data:plain\n\nevent: nothing\n\nevent: last\rdata: x\r\r";
  const expected = [
    { event: "message_created", data: '{"a":\n"héllo 😀 – 文字"}' }, { event: "message", data: "plain" }, { event: "last", data: "x" },
  ];
  const bytes = new TextEncoder().encode(text);

  it("regression 10: bytes may be split anywhere, in lines and in characters", () => {
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      const parser = new SseParser();
      assert.deepEqual([...parser.feed(bytes.slice(0, cut)), ...parser.feed(bytes.slice(cut))], expected, `cut at ${cut}`);
    }
  });

  it("regression 10: and into single bytes", () => {
    const parser = new SseParser();
    assert.deepEqual([...bytes].flatMap((byte) => parser.feed(Uint8Array.of(byte))), expected);
  });
});

describe("Conversation", () => {
  const event = (event_type, payload, seq) => ({ event_type, payload, seq, session_id: "s", timestamp: "t" });
  const message = (message_id, role, content, seq, more = {}) => event("message_created", { message_id, role, content, timestamp: "t", ...more }, seq);
  const contents = (conversation) => conversation.messages.map((one) => one.content);

  it("shows an answer grow and gives the durable message the last word", () => {
    const conversation = new Conversation();
    conversation.apply(message("u", "user", "hi", 1));
    conversation.apply(event("message_delta", delta(0, "Hel")));
    conversation.apply(event("message_delta", delta(3, "lo")));
    assert.deepEqual(contents(conversation), ["hi", "Hello"]);
    assert.equal(conversation.messages[1].done, false);
    conversation.apply(message("m", "assistant", "Hello!", 2, { finish_reason: "stop" }));
    assert.deepEqual(contents(conversation), ["hi", "Hello!"]);
    assert.equal(conversation.messages[1].done, true);
    assert.equal(conversation.apply(event("message_delta", delta(6, "?"))), false);
    assert.deepEqual(contents(conversation), ["hi", "Hello!"]);
  });

  it("shows a whole answer once when it joins in its middle", () => {
    const conversation = new Conversation();
    conversation.apply(message("u", "user", "hi", 1));
    conversation.apply(event("message_delta", delta(0, "all that was written ")));
    conversation.apply(event("message_delta", delta(13, "written so far")));
    assert.deepEqual(contents(conversation), ["hi", "all that was written so far"]);
  });

  it("keeps the log's order, with what is being written at the end", () => {
    const conversation = new Conversation();
    conversation.apply(event("message_delta", delta(0, "being written")));
    conversation.apply(message("t", "tool", "stored", 1));
    assert.deepEqual(contents(conversation), ["stored", "being written"]);
  });

  it("drops a repeated message", () => {
    const conversation = new Conversation();
    conversation.apply(message("u", "user", "hi", 1));
    assert.equal(conversation.apply(message("u", "user", "hi", 1)), false);
    assert.equal(conversation.messages.length, 1);
  });

  it("follows turn, queue, agent and tool calls", () => {
    const conversation = new Conversation();
    conversation.apply(event("task_started", { turn_id: "t1", agent_type: "coder" }, 1));
    conversation.apply(event("queue_changed", { change: "added", message_id: "q1", content: "one" }, 2));
    conversation.apply(event("queue_changed", { change: "added", message_id: "q2", content: "two" }, 3));
    conversation.apply(event("queue_changed", { change: "reordered", order: ["q2", "q1"] }, 4));
    assert.deepEqual(conversation.queue.map((one) => one.message_id), ["q2", "q1"]);
    conversation.apply(event("queue_changed", { change: "started", message_id: "q2" }, 5));
    assert.deepEqual(conversation.queue.map((one) => one.content), ["one"]);
    conversation.apply(event("tool_call", { call_id: "k", name: "read_file", arguments: {} }, 6));
    conversation.apply(event("tool_result", { call_id: "k", result: "text" }, 7));
    assert.deepEqual([conversation.calls.get("k").name, conversation.calls.get("k").done], ["read_file", true]);
    conversation.apply(event("task_cancelling", { turn_id: "t1" }, 8));
    assert.equal(conversation.turn.cancelling, true);
    conversation.apply(event("task_completed", { turn_id: "t1", status: "failed", error: { code: "internal", message: "broke" } }, 9));
    assert.equal(conversation.turn, null);
    assert.equal(conversation.failure.message, "broke");
    conversation.apply(event("agent_switched", { from_agent: "coder", to_agent: "ask" }, 10));
    assert.equal(conversation.agent, "ask");
  });

  it("knows who is here, and the turn that was running before it came", () => {
    const conversation = new Conversation();
    const session = { current_agent: "coder", active_turn: "t1" };
    conversation.apply(event("connected", { session, agent: { type: "ask" }, clients: [{ client_id: "a" }] }));
    conversation.apply(event("presence_changed", { change: "joined", client: { client_id: "b" }, clients: 2 }));
    conversation.apply(event("presence_changed", { change: "left", client: { client_id: "a" }, clients: 1 }));
    assert.deepEqual([conversation.agent, conversation.turn.turn_id], ["ask", "t1"]);
    assert.deepEqual(conversation.clients, [{ client_id: "b" }]);
  });

  it("ignores events from the future", () => {
    assert.equal(new Conversation().apply(event("hologram_projected", { x: 1 }, 1)), false);
  });

  it("takes a history in before what it knows", () => {
    const conversation = new Conversation();
    conversation.apply(message("b", "assistant", "second", 2));
    conversation.restore([{ message_id: "a", role: "user", content: "first" }, { message_id: "b", role: "assistant", content: "second" }]);
    assert.deepEqual(contents(conversation), ["first", "second"]);
  });
});

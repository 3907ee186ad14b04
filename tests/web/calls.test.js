// Tool calls out of events: what state they are in, who has them, who decided.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { CallBook, Conversation } from "../../server/web/parley.js";

const CALL = { call_id: "k", turn_id: "t1", message_id: "m1", name: "write_file", arguments: { path: "a" }, executor: "client" };
const QUESTION = {
  call_id: "k", turn_id: "t1", message_id: "m1", name: "write_file", arguments: { path: "a" }, arguments_hash: "h",
  approval_id: "a1", allowed_decisions: ["approve", "reject"], expires_at: null, rule: "tool", reason: "it writes",
};

const event = (event_type, payload, seq) => ({ event_type, session_id: "s", timestamp: `at ${seq ?? "?"}`, payload, seq });

function book(...events) {
  const calls = new CallBook();
  for (const [type, payload] of events) calls.apply(event(type, payload));
  return calls;
}

const stateOf = (...events) => book(...events).get("k").state;

describe("CallBook", () => {
  it("follows a call from the message to its result", () => {
    const dispatched = { call_id: "k", turn_id: "t1", name: "write_file", arguments: { path: "a" }, client_id: "c", deadline: "d" };
    const steps = [
      ["tool_call", CALL, "waiting"], ["approval_required", QUESTION, "approval"],
      ["approval_resolved", { ...QUESTION, decision: "approve", cause: "person", user: "anna" }, "waiting"],
      ["tool_dispatched", dispatched, "running"], ["tool_progress", { call_id: "k", message: "half", fraction: 0.5, deadline: "e" }, "running"],
      ["tool_result", { call_id: "k", turn_id: "t1", name: "write_file", executor: "client", result: "ok", duration_ms: 5, client_id: "c" }, "done"],
    ];
    const calls = new CallBook();
    for (const [number, [type, payload, state]] of steps.entries()) {
      assert.equal(calls.apply(event(type, payload, number)), true);
      assert.equal(calls.get("k").state, state, type);
    }
    const call = calls.get("k");
    assert.deepEqual([call.client_id, call.deadline, call.result, call.duration_ms, call.done, call.started_at], ["c", "e", "ok", 5, true, "at 3"]);
    assert.deepEqual([call.approval.resolved.user, call.approval.resolved.decision, call.approval.reason], ["anna", "approve", "it writes"]);
  });

  it("is called by the end that it had", () => {
    const made = [["tool_call", CALL], ["approval_required", QUESTION]];
    const result = (more) => ["tool_result", { call_id: "k", turn_id: "t1", name: "n", executor: "client", ...more }];
    const resolved = (more) => ["approval_resolved", { ...QUESTION, cause: "person", ...more }];
    assert.equal(stateOf(...made, resolved({ decision: "reject" })), "rejected");
    assert.equal(stateOf(...made, resolved({ decision: "reject" }), result({ error: "no" })), "rejected");
    assert.equal(stateOf(...made, resolved({ decision: "reject", cause: "expiry" }), result({ error: "late" })), "expired");
    assert.equal(stateOf(...made, resolved({ decision: "reject", cause: "cancel" }), result({ error: "stopped" })), "cancelled");
    assert.equal(stateOf(...made, resolved({ decision: "respond", feedback: "blue" }), result({ result: "blue" })), "done");
    assert.equal(stateOf(...made, resolved({ decision: "approve" }), result({ error: "broke" })), "failed");
    assert.equal(stateOf(["tool_call", { ...CALL, executor: "server" }]), "ready");
  });

  it("keeps what a person made of the arguments beside those of the agent", () => {
    const call = book(["tool_call", CALL], ["approval_required", QUESTION],
      ["approval_resolved", { ...QUESTION, decision: "edit", cause: "person", arguments: { path: "b" } }]).get("k");
    assert.deepEqual([call.arguments, call.executed], [{ path: "a" }, { path: "b" }]);
  });

  it("is not opened again by what is told again after a replay", () => {
    const calls = book(["tool_call", CALL], ["approval_required", QUESTION],
      ["approval_resolved", { ...QUESTION, decision: "approve", cause: "person" }]);
    const before = calls.get("k");
    assert.equal(calls.apply(event("approval_required", QUESTION)), false);
    assert.equal(calls.get("k"), before);
    calls.apply(event("tool_result", { call_id: "k", result: null }));
    assert.equal(calls.apply(event("tool_dispatched", { call_id: "k", client_id: "c" })), false);
    assert.equal(calls.apply(event("tool_progress", { call_id: "k", fraction: 1 })), false);
    assert.equal(calls.apply(event("approval_timeout_warning", { call_id: "k" })), false);
  });

  it("never changes an object that was given out", () => {
    const calls = book(["tool_call", CALL]);
    const before = calls.get("k");
    calls.apply(event("approval_required", QUESTION));
    assert.equal(before.state, "waiting");
    assert.notEqual(calls.get("k"), before);
  });

  it("lists what is to be decided, and that it will soon expire", () => {
    const calls = book(["approval_required", QUESTION], ["approval_required", { ...QUESTION, call_id: "l", approval_id: "a2" }]);
    calls.apply(event("approval_timeout_warning", { call_id: "l", expires_at: "soon" }));
    assert.deepEqual(calls.undecided.map((call) => [call.call_id, call.approval.warned]), [["k", false], ["l", true]]);
  });
});

describe("a Conversation with tools", () => {
  const message = (id, more) => ({ message_id: id, role: "assistant", content: "", timestamp: "t", ...more });
  const call = (id) => ({ call_id: id, name: "ask_agent", arguments: '{"agent_type": "ask"}' });

  it("knows the calls of a history", () => {
    const conversation = new Conversation();
    const asked = { id: "h", type: "function", function: { name: "read_file", arguments: '{"path": "a"}' } };
    conversation.restore([
      message("m1", { tool_calls: [call("k"), asked] }),
      { message_id: "m2", role: "tool", content: "text", tool_call_id: "k", name: "ask_agent", timestamp: "t" },
    ]);
    const { k, h } = Object.fromEntries(conversation.calls);
    assert.deepEqual([k.state, k.result, k.arguments], ["done", "text", { agent_type: "ask" }]);
    assert.deepEqual([h.state, h.name, h.arguments], ["asked", "read_file", { path: "a" }]);
    assert.equal(conversation.messages[0].tool_calls[1].name, "read_file");
  });

  it("takes open approvals from a snapshot", () => {
    const conversation = new Conversation();
    const listeners = {};
    conversation.follow({ on: (type, listener) => { listeners[type] = listener; } });
    listeners.resync({ snapshot: { session: { current_agent: "ask" }, messages: [], approvals: [QUESTION] } });
    assert.deepEqual(conversation.approvals.map((one) => one.call_id), ["k"]);
  });

  it("nests the turn that answers a call", () => {
    const conversation = new Conversation();
    const log = [
      ["task_started", { turn_id: "t1", message_id: "u", agent_type: "orchestrator", agent_name: "Orchestrator" }],
      ["message_created", message("m1", { turn_id: "t1", tool_calls: [call("k")] })],
      ["tool_call", { call_id: "k", turn_id: "t1", message_id: "m1", name: "ask_agent", arguments: {}, executor: "server" }],
      ["message_created", message("c1", { role: "user", content: "look", parent_call_id: "k", turn_id: "t2" })],
      ["task_started", { turn_id: "t2", message_id: "c1", agent_type: "ask", agent_name: "Ask", parent_call_id: "k" }],
    ];
    let seq = 0;
    const tell = (type, payload) => conversation.apply(event(type, payload, (seq += 1)));
    for (const [type, payload] of log) tell(type, payload);
    assert.equal(conversation.turn.turn_id, "t1", "the turn above goes on");
    tell("message_delta", { message_id: "c2", attempt: 1, part: "content", offset: 0, text: "Loo" });
    const [task, answer] = conversation.threads.get("k");
    assert.deepEqual([task.content, answer.content, answer.done, answer.agent_name], ["look", "Loo", false, "Ask"]);
    tell("message_created", message("c2", { content: "Looked.", parent_call_id: "k", turn_id: "t2" }));
    const usage = { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12, cost: 0.5 };
    tell("task_completed", { turn_id: "t2", status: "completed", usage, steps: 1, duration_ms: 7, parent_call_id: "k" });
    assert.deepEqual(conversation.threads.get("k").map((one) => one.content), ["look", "Looked."]);
    assert.equal(conversation.turn.turn_id, "t1");
    tell("message_delta", { message_id: "m3", attempt: 1, part: "content", offset: 0, text: "So" });
    assert.deepEqual(conversation.messages.map((one) => one.message_id), ["m1", "m3"]);
    tell("task_completed", { turn_id: "t1", status: "completed", usage: { ...usage, cost: null }, steps: 2, duration_ms: 9 });
    assert.equal(conversation.turn, null);
    assert.deepEqual([conversation.usage.total_tokens, conversation.usage.cost], [24, 0.5]);
    assert.equal(conversation.calls.get("k").child_turn, "t2");
  });

  it("does not guess which of several asked agents writes", () => {
    const conversation = new Conversation();
    for (const [turn, id] of [["t2", "k"], ["t3", "l"]]) {
      conversation.apply(event("tool_call", { call_id: id, turn_id: "t1", name: "ask_agent", executor: "server" }));
      conversation.apply(event("task_started", { turn_id: turn, message_id: "x", parent_call_id: id }));
    }
    const delta = { message_id: "c2", attempt: 1, part: "content", offset: 0, text: "Loo" };
    assert.equal(conversation.apply(event("message_delta", delta)), false);
    conversation.apply(event("message_created", message("c2", { content: "Looked.", parent_call_id: "l" }), 9));
    assert.deepEqual([conversation.messages.length, conversation.threads.get("l").length], [0, 1]);
  });

  it("ends calls with their turn, and remembers who handed over to whom", () => {
    const conversation = new Conversation();
    conversation.apply(event("task_started", { turn_id: "t1", message_id: "u", agent_type: "orchestrator" }, 1));
    conversation.apply(event("tool_call", CALL, 2));
    conversation.apply(event("agent_switched", { from_agent: "orchestrator", to_agent: "coder", cause: "agent", reason: "code", turn_id: "t1" }, 3));
    assert.equal(conversation.turn.agent_type, "coder");
    assert.deepEqual(conversation.switches.map((one) => [one.from_agent, one.to_agent, one.reason, one.seq]), [["orchestrator", "coder", "code", 3]]);
    conversation.apply(event("task_completed", { turn_id: "t1", status: "cancelled", usage: {}, steps: 1, duration_ms: 1 }, 4));
    assert.equal(conversation.calls.get("k").state, "cancelled");
  });

  it("puts a message that interrupts before the others that wait", () => {
    const conversation = new Conversation();
    const added = (id, on_busy) => conversation.apply(event("queue_changed", { change: "added", message_id: id, content: id, on_busy }));
    added("a");
    added("b", "interrupt");
    added("c", "steer");
    assert.deepEqual(conversation.queue.map((one) => [one.message_id, one.on_busy]), [["b", "interrupt"], ["a", null], ["c", "steer"]]);
  });
});

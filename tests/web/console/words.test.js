// Calls, decisions and figures as people say them; where columns of a chart stand.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  brief, clientName, contentBefore, costText, decisionText, duration, pretty, remaining, stateText, usageText,
} from "../../../server/web/console/describe.js";
import { columns } from "../../../server/web/console/plot.js";

const HERE = { me: "me", clients: [{ client_id: "me" }, { client_id: "vscode" }] };
const CALL = { call_id: "k", state: "running", client_id: null, child_turn: null, approval: null, executed: null, arguments: {} };

describe("words", () => {
  it("say how far a call is, and where", () => {
    const said = (more) => stateText({ ...CALL, ...more }, HERE);
    assert.equal(said({}), "Running");
    assert.equal(said({ client_id: "me" }), "Running at this tab");
    assert.equal(said({ client_id: "vscode" }), "Running at vscode");
    assert.equal(said({ client_id: "0123456789-0123456789-0123456789" }), "Running at 01234567… (not here)");
    assert.equal(said({ child_turn: "t2" }), "Under way");
    assert.equal(said({ state: "done", approval: { resolved: { decision: "respond" } } }), "Answered");
    const states = ["asked", "approval", "waiting", "ready", "done", "failed", "rejected", "expired", "cancelled"];
    assert.equal(new Set(states.map((state) => said({ state }))).size, states.length);
    assert.equal(clientName(null, HERE), "the server");
  });

  it("say who decided, and from where", () => {
    const decided = (more) => decisionText({ decision: "approve", cause: "person", user: "anna", client_id: "me", rule: null, ...more }, HERE);
    assert.equal(decided({}), "Approved by anna, from this tab");
    assert.equal(decided({ decision: "edit", client_id: null }), "Approved with changes by anna");
    assert.equal(decided({ cause: "rule", rule: "mine" }), "Approved by a rule: mine");
    assert.match(decided({ cause: "expiry" }), /Nobody decided in time/);
    assert.match(decided({ cause: "cancel" }), /turn ended/);
  });

  it("tell the one thing of a call's arguments that matters", () => {
    assert.equal(brief({ content: "x", path: "a.txt" }), "a.txt");
    assert.equal(brief({ command: "ls\n  -l" }), "ls -l");
    assert.equal(brief({ b: 1 }), '{"b":1}');
    assert.equal(brief({}), "");
    assert.equal(brief(undefined), "");
    assert.equal(brief('{"a": tr'), '{"a": tr');
    assert.equal(pretty({ a: [1] }), '{\n  "a": [\n    1\n  ]\n}');
    assert.equal(pretty('{"a":1}'), '{\n  "a": 1\n}');
    assert.equal(pretty("no { json"), "no { json");
    assert.equal(pretty(null), "");
  });

  it("know what a file held before it is written", () => {
    const done = (name, given, more = {}) => ({ ...CALL, call_id: name, name, state: "done", arguments: { path: "a", ...given }, ...more });
    const writing = { ...CALL, call_id: "w", name: "write_file", arguments: { path: "a", content: "new" } };
    assert.equal(contentBefore([writing], writing), null);
    assert.equal(contentBefore([done("read_file", {}, { result: "old" }), writing], writing), "old");
    assert.equal(contentBefore([done("read_file", {}, { result: { content: "old" } }), writing], writing), "old");
    assert.equal(contentBefore([done("read_file", { start_line: 5 }, { result: "part" }), writing], writing), null);
    assert.equal(contentBefore([done("read_file", {}, { result: "old" }), done("write_file", { content: "newer" }), writing], writing), "newer");
    assert.equal(contentBefore([done("write_file", { content: "x" }), done("delete_file", {}), writing], writing), null);
    assert.equal(contentBefore([done("read_file", { path: "b" }, { result: "other" }), writing], writing), null);
    const edited = done("write_file", { content: "agent's" }, { executed: { path: "a", content: "person's" } });
    assert.equal(contentBefore([edited, writing, done("read_file", {}, { result: "later" })], writing), "person's");
  });

  it("give times and sums their size", () => {
    assert.deepEqual([340.4, 2400, 59_900, 65_000, 7_380_000, null].map(duration), ["340 ms", "2.4 s", "60 s", "1 min 5 s", "2 h 3 min", ""]);
    assert.deepEqual([-5, 41_500, 725_000, 3 * 3_600_000, 5 * 86_400_000].map(remaining), ["0:00", "0:42", "12:05", "3:00:00", "5 days"]);
    assert.deepEqual([0, 0.0123, 1.5].map(costText), ["0.00", "0.0123", "1.50"]);
    assert.equal(usageText({ total_tokens: 42, cost: 0.01 }, 1500), "42 tokens · cost 0.0100 · 1.5 s");
    assert.equal(usageText({ total_tokens: 0, cost: null }), "");
  });
});

describe("columns", () => {
  it("stand side by side, the tallest as high as the field", () => {
    const places = columns([0, 5, 10], 70, 100);
    assert.deepEqual(places.map(({ x, y, height }) => [x, y, height]), [[0, 100, 0], [10, 50, 50], [20, 0, 100]]);
    assert.equal(columns([0, 0], 70, 100)[0].height, 0);
    assert.equal(columns(Array(100).fill(1), 70, 100).at(-1).x + columns(Array(100).fill(1), 70, 100).at(-1).width <= 70, true);
  });
});

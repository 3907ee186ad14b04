// Tools that run in the page: offered, run once, answered, over reconnects and reloads.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { CallMemory } from "../../server/web/parley.js";
import { World, answer, settled } from "./support.js";

const TITLE = { name: "title", description: "The page's title", parameters: { type: "object" }, read_only: true };
const SAVE = { name: "save", parameters: { type: "object" } };

/** A handler whose calls end when the test says so. */
function slow() {
  const calls = [];
  const run = (call) => new Promise((resolve, reject) => calls.push({ call, resolve, reject }));
  return { run, calls };
}

function dispatched(world, more = {}, seq = undefined) {
  const payload = { call_id: "k", turn_id: "t", client_id: "me", name: "save", arguments: { a: 1 }, deadline: null, ...more };
  const place = seq === undefined ? {} : { seq, cursor: `e.${seq}` };
  world.socket.frame({ event_type: "tool_dispatched", session_id: "s1", timestamp: "t", payload, ...place });
}

const begin = (world, more) => world.socket.begin({ client_id: "me", ...more });
const ofType = (world, type) => world.socket.commands.filter((command) => command.type === type);
const acknowledge = (world, command) => world.socket.event("ack", { id: command.id, status: "accepted" });

/** A session that is live and has its tools registered. */
async function opened(tools, handler, options = {}) {
  const world = new World();
  const session = world.connect({ clientId: "me", ...options });
  const offered = session.registerTools(tools, handler);
  begin(world);
  acknowledge(world, ofType(world, "register_tools")[0]);
  await settled();
  return { world, session, offered };
}

describe("tools of a page", () => {
  it("are offered as soon as there is a connection, and again after each reconnect, before anything that waits", async () => {
    const { world, session, offered } = await opened([TITLE], () => "x");
    assert.equal(await offered, null);
    assert.deepEqual(ofType(world, "register_tools")[0].tools, [TITLE]);
    world.socket.cut();
    session.message("later");
    await world.advance(2_000);
    begin(world);
    assert.equal(world.socket.commands[0].type, "register_tools");
    acknowledge(world, world.socket.commands[0]);
    await settled();
    assert.equal(world.socket.commands[1].type, "user_message");
  });

  it("add up, and are taken back", async () => {
    const { world, session } = await opened([TITLE], () => "x");
    const more = session.registerTools([{ ...SAVE, run: () => null }]);
    const [, second] = ofType(world, "register_tools");
    assert.deepEqual(second.tools.map((tool) => tool.name), ["title", "save"]);
    assert.equal("run" in second.tools[1], false);
    acknowledge(world, second);
    assert.equal((await more).status, "accepted");
    session.unregisterTools(["title", "save"]);
    assert.deepEqual(ofType(world, "register_tools")[2].tools, []);
    await assert.rejects(session.registerTools([{ ...TITLE, name: "nobody" }]), /neither a handler nor/);
  });

  it("say when the server does not take them", async () => {
    const world = new World();
    const session = world.connect({ clientId: "me" });
    const refusals = [];
    session.on("tools_refused", (error) => refusals.push(error.code));
    session.registerTools([TITLE], () => "x");
    begin(world);
    world.socket.event("command_error", { id: ofType(world, "register_tools")[0].id, code: "forbidden", message: "observers run nothing" });
    await settled();
    assert.deepEqual(refusals, ["forbidden"]);
  });

  it("run what is given to this client, with the arguments that were decided, and answer once", async () => {
    const { world } = await opened([SAVE], ({ arguments: { a }, name }) => ({ name, a }));
    dispatched(world, { client_id: "somebody else" }, 1);
    dispatched(world, {}, 2);
    await settled();
    const [result] = ofType(world, "tool_result");
    assert.deepEqual([result.call_id, result.result], ["k", { name: "save", a: 1 }]);
    dispatched(world); // told again, before and after the acknowledgement
    await settled();
    acknowledge(world, result);
    await settled();
    dispatched(world);
    await settled();
    assert.equal(ofType(world, "tool_result").length, 1);
  });

  it("do not run what a replay tells of, but what is told again after it", async () => {
    const world = new World();
    const { run, calls } = slow();
    world.connect({ clientId: "me", after: 0 }).registerTools([SAVE], run);
    world.socket.event("connected", { client_id: "me", cursor: "e.0", limits: {} });
    dispatched(world, {}, 1);
    world.socket.event("sync", { from: "e.0", through: "e.1" });
    assert.equal(calls.length, 0);
    dispatched(world);
    assert.equal(calls.length, 1);
  });

  it("regression 38: run on over a reconnect, and deliver under the same id until it is acknowledged", async () => {
    const { run, calls } = slow();
    const { world } = await opened([SAVE], run);
    dispatched(world, {}, 1);
    world.socket.cut();
    await world.advance(2_000);
    begin(world, { cursor: "e.1" });
    dispatched(world);
    acknowledge(world, ofType(world, "register_tools")[0]);
    await settled();
    assert.equal(calls.length, 1, "it is running already");
    calls[0].resolve("done");
    await settled();
    const [first] = ofType(world, "tool_result");
    world.socket.cut();
    await world.advance(2_000);
    begin(world, { cursor: "e.1" });
    acknowledge(world, ofType(world, "register_tools")[0]);
    await settled();
    assert.deepEqual(ofType(world, "tool_result"), [first]);
  });

  it("tell the model what went wrong", async () => {
    const outcomes = [() => { throw new Error("no\0 such file"); }, () => 10n, () => undefined, async () => { throw new Error(""); }];
    const told = [];
    for (const outcome of outcomes) {
      const { world } = await opened([SAVE], outcome);
      dispatched(world, {}, 1);
      await settled();
      const [{ result, error }] = ofType(world, "tool_result");
      told.push(error ?? result);
    }
    assert.equal(told[0], "no such file");
    assert.match(told[1], /no JSON value/);
    assert.deepEqual(told.slice(2), [null, "Error"]);
  });

  it("say that a result was too large instead of leaving the call without one", async () => {
    const world = new World();
    world.connect({ clientId: "me" }).registerTools([SAVE], () => "x".repeat(5000));
    begin(world, { limits: { max_command_bytes: 1000 } });
    acknowledge(world, ofType(world, "register_tools")[0]);
    dispatched(world, {}, 1);
    await settled();
    assert.match(ofType(world, "tool_result")[0].error, /could not be delivered: the command has \d+ bytes, 1000 are allowed/);
  });

  it("are told when their result is not wanted any more", async () => {
    const ends = [
      ["tool_result", { call_id: "k", result: 1 }], ["task_completed", { turn_id: "t", status: "cancelled", usage: {} }],
    ];
    for (const [type, payload] of ends) {
      const { run, calls } = slow();
      const { world } = await opened([SAVE], run);
      dispatched(world, {}, 1);
      world.socket.durable(2, type, payload);
      assert.equal(calls[0].call.signal.aborted, true, type);
      calls[0].resolve("too late");
      await settled();
      assert.equal(ofType(world, "tool_result").length, 0);
    }
  });

  it("are content when somebody else was first", async () => {
    const { world, session } = await opened([SAVE], () => 1);
    const refusals = [];
    session.on("tools_refused", (error) => refusals.push(error.code));
    dispatched(world, {}, 1);
    await settled();
    world.socket.event("command_error", { id: ofType(world, "tool_result")[0].id, code: "already_resolved", message: "anna" });
    await settled();
    assert.deepEqual(refusals, []);
    dispatched(world);
    await settled();
    assert.equal(ofType(world, "tool_result").length, 1);
  });

  it("tell how far they are, a few times a second at most, the last word always", async () => {
    const { run, calls } = slow();
    const { world } = await opened([SAVE], run);
    dispatched(world, { deadline: "2026-01-01T00:00:00.000Z" }, 1);
    const { call } = calls[0];
    for (let step = 1; step <= 5; step += 1) call.progress({ fraction: step / 10, message: `step ${step}` });
    assert.deepEqual(ofType(world, "tool_progress").map((one) => one.fraction), [0.1]);
    await world.advance(250);
    const said = ofType(world, "tool_progress");
    assert.deepEqual(said.map((one) => [one.fraction, one.message]), [[0.1, "step 1"], [0.5, "step 5"]]);
    assert.notEqual(said[0].id, said[1].id);
    world.socket.event("tool_progress", { call_id: "k", deadline: "2026-01-01T00:01:00.000Z" });
    assert.equal(call.deadline, Date.parse("2026-01-01T00:01:00.000Z"));
    calls[0].resolve(1);
    await settled();
    call.progress({ fraction: 1 });
    await world.advance(5_000);
    assert.equal(ofType(world, "tool_progress").length, 2);
  });

  it("wait for a page that offers its tools late, and give the call up in the end", async () => {
    const world = new World();
    const session = world.connect({ clientId: "me" });
    begin(world);
    dispatched(world);
    dispatched(world, { call_id: "l", name: "gone" });
    await world.advance(1_000);
    session.registerTools([SAVE], () => "late");
    acknowledge(world, ofType(world, "register_tools")[0]);
    await settled();
    const [result] = ofType(world, "tool_result");
    assert.deepEqual([result.call_id, result.result], ["k", "late"]);
    acknowledge(world, result);
    await world.advance(10_000);
    assert.match(ofType(world, "tool_result")[1].error, /does not offer gone any more/);
  });

  it("work the same over SSE and POST", async () => {
    const world = new World();
    const { run, calls } = slow();
    world.connect({ clientId: "me", transport: "sse" }).registerTools([SAVE], run);
    world.source.begin({ client_id: "me" });
    await settled();
    const body = () => JSON.parse(world.requests.at(-1).options.body);
    assert.equal(body().type, "register_tools");
    assert.equal(new URL(world.requests.at(-1).url).searchParams.get("client_id"), "me");
    world.requests.at(-1).answer(answer(200, { id: body().id, status: "accepted" }));
    world.source.event("tool_dispatched", { call_id: "k", turn_id: "t", client_id: "me", name: "save", arguments: {} });
    calls[0].call.progress({ message: "begun" });
    await settled();
    assert.deepEqual([body().type, body().message], ["tool_progress", "begun"]);
    calls[0].resolve("ok");
    await settled();
    assert.deepEqual([body().type, body().result], ["tool_result", "ok"]);
  });
});

describe("a page that is loaded again", () => {
  /** The same tab's storage and locks in a new world. */
  function reload(former) {
    const world = new World();
    world.env.storage = former.env.storage;
    world.env.locks = former.env.locks;
    former.env.locks.vanish();
    return world;
  }

  function tab() {
    const world = new World();
    const held = new Set();
    world.env.locks = {
      vanish: () => held.clear(),
      request(name, { signal }, work) {
        if (!held.has(name)) {
          held.add(name);
          return Promise.resolve().then(work).finally(() => held.delete(name));
        }
        return new Promise((_, reject) => { signal.addEventListener("abort", () => reject(signal.reason)); });
      },
    };
    return world;
  }

  async function open(world, tools, handler) {
    const session = world.connect({ remember: "tab" });
    session.registerTools(tools, handler);
    await world.advance(1_000);
    begin(world, { client_id: session.clientId });
    acknowledge(world, ofType(world, "register_tools")[0]);
    await settled();
    return session;
  }

  it("is the same client, and answers from what was done", async () => {
    const first = tab();
    let runs = 0;
    const count = () => (runs += 1);
    const session = await open(first, [SAVE], count);
    dispatched(first, { client_id: session.clientId }, 1);
    await settled();
    const [sent] = ofType(first, "tool_result");
    const second = reload(first);
    const again = await open(second, [SAVE], count);
    assert.equal(again.clientId, session.clientId);
    dispatched(second, { client_id: again.clientId });
    await settled();
    assert.deepEqual(ofType(second, "tool_result"), [sent]);
    assert.equal(runs, 1);
  });

  it("does not run again what may have taken effect, but what cannot do harm", async () => {
    const first = tab();
    const { run } = slow();
    const session = await open(first, [SAVE, TITLE], run);
    dispatched(first, { client_id: session.clientId }, 1);
    dispatched(first, { client_id: session.clientId, call_id: "l", name: "title" }, 2);
    const second = reload(first);
    const again = slow();
    const { clientId } = await open(second, [SAVE, TITLE], again.run);
    dispatched(second, { client_id: clientId });
    dispatched(second, { client_id: clientId, call_id: "l", name: "title" });
    await settled();
    assert.match(ofType(second, "tool_result")[0].error, /reloaded while save ran; whether it took effect is not known/);
    assert.deepEqual(again.calls.map(({ call }) => call.call_id), ["l"]);
  });

  it("is another client when it is a copy of a tab that is still there", async () => {
    const first = tab();
    const session = await open(first, [SAVE], () => 1);
    const copy = new World();
    copy.env.storage = first.env.storage;
    copy.env.locks = first.env.locks;
    copy.env.uuid = () => "another";
    const other = await open(copy, [SAVE], () => 1);
    assert.notEqual(other.clientId, session.clientId);
  });

  it("remembers in its own memory where storage is full or forbidden", () => {
    const full = { getItem: () => { throw new Error("forbidden"); }, setItem: () => { throw new Error("full"); }, removeItem() {} };
    const memory = new CallMemory(full, "key");
    memory.begin("k");
    assert.equal(memory.get("k"), null);
    memory.answer("k", { type: "tool_result", id: "r" });
    assert.equal(memory.answers.length, 1);
    memory.settle("k");
    assert.deepEqual([memory.get("k"), memory.get("l"), memory.answers], [true, undefined, []]);
  });

  it("lets the oldest calls go, never one without an answer", () => {
    const memory = new CallMemory();
    memory.begin("open");
    for (let number = 0; number < 500; number += 1) {
      memory.begin(`k${number}`);
      memory.settle(`k${number}`);
    }
    assert.equal(memory.get("open"), null);
    assert.equal(memory.get("k0"), undefined);
    assert.equal(memory.get("k499"), true);
  });
});

describe("decisions", () => {
  it("say what a person wants, and nothing that was not said", async () => {
    const world = new World();
    const session = world.connect({ clientId: "me" });
    begin(world);
    const remember = { scope: "session", arguments: { path: "src/*" } };
    const wanted = [
      [() => session.approve("k"), { decision: "approve" }],
      [() => session.approve("k", { remember }), { decision: "approve", remember }],
      [() => session.edit("k", { path: "b" }, { feedback: "there" }), { decision: "edit", modified_arguments: { path: "b" }, feedback: "there" }],
      [() => session.reject("k", { feedback: "no" }), { decision: "reject", feedback: "no" }],
      [() => session.respond("k", "blue"), { decision: "respond", feedback: "blue" }],
    ];
    for (const [decide, body] of wanted) {
      const decided = decide();
      const { id, ...sent } = world.socket.commands.at(-1);
      assert.deepEqual(sent, { type: "hitl_decision", call_id: "k", ...body });
      acknowledge(world, { id });
      await decided;
    }
  });

  it("that came too late say so", async () => {
    const world = new World();
    const session = world.connect({ clientId: "me" });
    begin(world);
    const late = session.approve("k");
    world.socket.event("command_error", { id: world.socket.commands[0].id, code: "already_resolved", message: "anna rejected it" });
    await assert.rejects(late, { code: "already_resolved", message: "anna rejected it" });
  });

  it("about the queue name messages", async () => {
    const world = new World();
    const session = world.connect({ clientId: "me" });
    begin(world);
    session.reorder(["b", "a"]);
    acknowledge(world, world.socket.commands[0]);
    await settled();
    session.unqueue("a");
    assert.deepEqual(world.socket.commands.map(({ id, ...rest }) => rest), [
      { type: "queue_update", order: ["b", "a"] }, { type: "queue_update", remove: "a" },
    ]);
  });
});

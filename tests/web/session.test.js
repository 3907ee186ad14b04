// One session over fake sockets and a clock that moves when told.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { Conversation, ParleyError, createSession, request } from "../../server/web/parley.js";
import { World, answer, settled, streaming } from "./support.js";

const collect = (session, type = "*") => {
  const seen = [];
  session.on(type, (event) => seen.push(event));
  return seen;
};

describe("a session over WebSocket", () => {
  it("asks for its place, is open at sync, and delivers", async () => {
    const world = new World();
    const session = world.connect({ after: 0, token: "t0ken", clientId: "me" });
    const seen = collect(session);
    assert.deepEqual(world.socket.protocols, ["parley.v1.json", "parley.bearer.t0ken"]);
    assert.equal(world.socket.url.startsWith("ws://host/sessions/s1/ws?"), true);
    assert.deepEqual([world.socket.query.get("after"), world.socket.query.get("client_id")], ["0", "me"]);
    assert.equal(world.socket.url.includes("t0ken"), false);
    assert.equal(session.state, "connecting");
    world.socket.begin();
    assert.equal(session.state, "open");
    assert.equal(await session.ready, session);
    world.socket.durable(1);
    assert.deepEqual(seen.map((event) => event.event_type), ["connected", "sync", "session_updated"]);
    assert.equal(session.cursor, "e.1");
  });

  it("reads several frames out of one message", () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin();
    const seen = collect(session);
    const frame = (seq) => JSON.stringify({ event_type: "x", seq, cursor: `e.${seq}`, payload: {} });
    world.socket.onmessage({ data: `${frame(1)}\n${frame(2)}` });
    assert.deepEqual(seen.map((event) => event.seq), [1, 2]);
  });

  it("passes unknown events to those who listen to everything", () => {
    const world = new World();
    const session = world.connect();
    const seen = collect(session);
    world.socket.begin();
    world.socket.durable(1, "hologram_projected");
    assert.equal(seen.at(-1).event_type, "hologram_projected");
  });

  it("regression 06: goes on from its cursor, nothing twice", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    const seen = collect(session, "session_updated");
    world.socket.begin();
    world.socket.durable(1);
    world.socket.durable(2);
    world.socket.cut();
    assert.equal(session.state, "reconnecting");
    await world.advance(500);
    assert.equal(world.sockets.length, 2);
    assert.equal(world.socket.query.get("after"), "e.2");
    world.socket.event("connected", { cursor: "e.1" });
    for (const seq of [2, 3]) world.socket.durable(seq);
    world.socket.event("sync", { from: "e.1", through: "e.3" });
    assert.deepEqual(seen.map((event) => event.seq), [1, 2, 3]);
    assert.equal(session.state, "open");
  });

  it("never lets a hole pass: it reads again from its cursor", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    const seen = collect(session, "session_updated");
    world.socket.begin();
    world.socket.durable(1);
    const holed = world.socket;
    holed.durable(3);
    assert.equal(session.state, "reconnecting");
    assert.equal(holed.closed, true);
    await world.advance(500);
    assert.equal(world.socket.query.get("after"), "e.1");
    assert.deepEqual(seen.map((event) => event.seq), [1]);
    world.socket.event("connected", { cursor: "e.1" });
    world.socket.event("sync", { from: "e.1", through: "e.3" });
    assert.equal(session.state, "reconnecting", "a sync beyond what came is a hole too");
  });

  it("surfaces another epoch once, and goes on in it", async () => {
    const world = new World();
    const session = world.connect({ after: "e.9" });
    const resyncs = collect(session, "resync");
    world.socket.event("connected", { cursor: "f.4" });
    world.socket.event("resync_required", { reason: "epoch_changed", cursor: "f.4" });
    world.socket.event("sync", { from: "f.4", through: "f.4" });
    world.socket.durable(5, "session_updated", {}, "f");
    assert.deepEqual(resyncs, [{ reason: "epoch_changed", cursor: "f.4", snapshot: null }]);
    assert.deepEqual([session.cursor, session.state], ["f.5", "open"]);
  });

  it("notices another epoch by itself", () => {
    const world = new World();
    const session = world.connect({ after: "e.9" });
    const resyncs = collect(session, "resync");
    world.socket.begin({ cursor: "f.4" });
    assert.deepEqual([resyncs.length, resyncs[0].reason, session.cursor, session.state], [1, "epoch_changed", "f.4", "open"]);
  });

  it("rebuilds a conversation from a snapshot, or from the history", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    const conversation = new Conversation().follow(session);
    const shown = () => conversation.messages.map((message) => message.content);
    const message = (message_id, content) => ({ message_id, role: "user", content, timestamp: "t" });
    world.socket.begin();
    world.socket.durable(1, "message_created", message("old", "old"));
    const about = { current_agent: "coder", active_turn: null };
    const snapshot = { session: about, messages: [message("a", "kept")], has_more: false, queue: [{ message_id: "q", content: "waits" }] };
    world.socket.event("resync_required", { reason: "trimmed", cursor: "e.40", snapshot });
    world.socket.durable(41, "message_created", message("b", "new"));
    assert.deepEqual([shown(), conversation.queue.length, conversation.agent], [["kept", "new"], 1, "coder"]);
    world.socket.event("resync_required", { reason: "trimmed", cursor: "e.50" });
    world.requests[0].answer(answer(503));
    await settled();
    await settled();
    world.socket.event("sync", { from: "e.50", through: "e.50" });
    world.requests[1].answer(answer(200, { messages: [message("c", "read again")] }));
    await settled();
    await settled();
    assert.deepEqual(shown(), ["read again"]);
  });

  it("takes a cursor from resync_required", () => {
    const world = new World();
    const session = world.connect({ after: "e.9" });
    const resyncs = collect(session, "resync");
    world.socket.event("connected", { cursor: "e.9" });
    world.socket.event("resync_required", { reason: "trimmed", cursor: "e.40" });
    world.socket.event("sync", { from: "e.40", through: "e.40" });
    assert.deepEqual([resyncs.length, session.cursor], [1, "e.40"]);
  });

  it("pings when it sent nothing for an interval, and takes two silent intervals for a loss", async () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin({ heartbeat_interval_ms: 10_000 });
    await world.advance(10_000);
    assert.deepEqual(world.socket.commands.map((command) => command.type), ["ping"]);
    world.socket.event("heartbeat");
    await world.advance(15_000);
    assert.equal(session.state, "open");
    world.socket.event("heartbeat");
    await world.advance(20_000);
    assert.equal(session.state, "reconnecting");
  });

  it("pings also when a hidden page's timers stand still", () => {
    const world = new World();
    world.connect();
    world.socket.begin({ heartbeat_interval_ms: 10_000 });
    world.now += 10_000;
    assert.equal(world.socket.sent.length, 0);
    world.socket.event("heartbeat");
    assert.deepEqual(world.socket.commands.map((command) => command.type), ["ping"]);
  });

  it("obeys close codes and in-band advice", async () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin();
    world.socket.event("disconnect", { code: "shutdown", reason: "restart", reconnect: true, retry_after_ms: 3000 });
    world.socket.cut(4000);
    await world.advance(2999);
    assert.equal(world.sockets.length, 1);
    await world.advance(1);
    assert.equal(world.sockets.length, 2);
    world.socket.begin();
    const waiting = session.send({ type: "cancel" });
    world.socket.cut(4502, "session_gone");
    await assert.rejects(waiting, { code: "session_gone" });
    await world.advance(100_000);
    assert.deepEqual([session.state, session.error.code, world.sockets.length], ["closed", "session_gone", 2]);
    await assert.rejects(session.message("late"), { code: "session_gone" });
  });

  it("closes when told, and tells those who wait", async () => {
    const world = new World();
    const session = world.connect();
    const waiting = session.message("x");
    session.close();
    await assert.rejects(waiting, { code: "closed" });
    await assert.rejects(session.ready, { code: "closed" });
    await world.advance(100_000);
    assert.deepEqual([session.state, world.sockets.length, world.socket.closed], ["closed", 1, true]);
  });

  it("tries at once when woken, but never in a loop", async () => {
    const world = new World();
    world.randomness = 1;
    const session = world.connect();
    world.socket.begin();
    await world.advance(11_000);
    world.socket.cut();
    session.wake();
    assert.equal(world.sockets.length, 2);
    world.socket.cut();
    for (let turn = 0; turn < 50; turn += 1) session.wake();
    assert.equal(world.sockets.length, 2);
  });
});

describe("commands", () => {
  it("go one at a time and in order, with one id over reconnects", async () => {
    const world = new World();
    const session = world.connect();
    const first = session.message("one", { agentType: "coder", onBusy: "steer" });
    const second = session.cancel("turn");
    assert.equal(session.pending, 2);
    world.socket.begin();
    assert.deepEqual(world.socket.commands, [{ type: "user_message", content: "one", agent_type: "coder", on_busy: "steer", id: world.socket.commands[0].id }]);
    const { id } = world.socket.commands[0];
    world.socket.cut();
    await world.advance(500);
    world.socket.begin();
    assert.equal(world.socket.commands[0].id, id);
    world.socket.event("ack", { id, status: "accepted", seq: 1 });
    assert.equal((await first).seq, 1);
    assert.deepEqual(world.socket.commands[1].turn_id, "turn");
    world.socket.event("ack", { id: world.socket.commands[1].id, status: "accepted" });
    await second;
    assert.equal(session.pending, 0);
  });

  it("reject with the server's code and path", async () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin();
    const sent = session.message("");
    world.socket.event("command_error", { id: world.socket.commands[0].id, code: "invalid", message: "must not be empty", path: "$.content" });
    await assert.rejects(sent, (error) => error instanceof ParleyError && error.code === "invalid" && error.path === "$.content");
  });

  it("are repeated, same id, when the server is busy, and nothing overtakes them", async () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin();
    const sent = session.message("x");
    session.message("y").catch(() => {});
    const [{ id }] = world.socket.commands;
    world.socket.event("command_error", { id, code: "unavailable", message: "database away", retry_after_ms: 1000 });
    assert.equal(world.socket.commands.length, 1);
    await world.advance(1000);
    assert.deepEqual(world.socket.commands.map((command) => command.id), [id, id]);
    world.socket.event("ack", { id, status: "accepted" });
    await sent;
    assert.equal(world.socket.commands.at(-1).content, "y");
  });

  it("without an answer put the connection in question", async () => {
    const world = new World();
    const session = world.connect({ timings: { acknowledge: 5000 } });
    world.socket.begin();
    session.message("x").catch(() => {});
    await world.advance(5000);
    assert.equal(session.state, "reconnecting");
  });

  it("that were answered, or whose connection is gone, put nothing in question", async () => {
    const world = new World();
    const session = world.connect({ timings: { acknowledge: 5000 } });
    world.socket.begin();
    const sent = session.message("x");
    world.socket.event("ack", { id: world.socket.commands[0].id, status: "accepted" });
    await sent;
    await world.advance(6000);
    assert.equal(session.state, "open");
    session.message("y").catch(() => {});
    world.socket.cut();
    await world.advance(500);
    world.socket.event("connected", { cursor: "e.0" });
    await world.advance(6000);
    assert.deepEqual([world.sockets.length, world.socket.closed], [2, false]);
  });

  it("beyond the server's limit never leave the page", async () => {
    const world = new World();
    const session = world.connect();
    world.socket.begin({ limits: { max_command_bytes: 100 } });
    await assert.rejects(session.message("ü".repeat(50)), { code: "too_large" });
    assert.equal(world.socket.sent.length, 0);
  });
});

describe("the fallback", () => {
  it("begins when WebSocket cannot even be made", async () => {
    const world = new World();
    world.env.WebSocket = class { constructor() { throw new Error("blocked"); } };
    const session = world.connect({ after: 0 });
    await world.advance(0);
    assert.equal(session.transport, "sse");
    world.source.begin();
    assert.equal(session.state, "open");
  });

  it("regression 28: begins when the upgrade succeeds and nothing comes through", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    await world.advance(4000);
    assert.equal(world.socket.closed, true);
    await world.advance(0);
    world.source.begin();
    assert.deepEqual([session.state, session.transport], ["open", "sse"]);
  });

  it("regression 28: begins when the socket is cut again and again before sync", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    for (const wait of [500, 0]) {
      world.socket.event("connected", { cursor: "e.0" });
      world.socket.cut();
      await world.advance(wait);
    }
    assert.deepEqual([world.sockets.length, world.sources.length, session.transport], [2, 1, "sse"]);
  });

  it("regression 28: begins when the socket is cut each time just after sync", async () => {
    const world = new World();
    world.connect({ after: 0 });
    for (let cut = 0; cut < 3; cut += 1) {
      world.socket.begin();
      world.socket.cut();
      if (cut < 2) await world.advance(500);
    }
    await world.advance(0);
    assert.deepEqual([world.sockets.length, world.sources.length], [3, 1]);
  });

  it("changes transport in mid-answer without loss or repetition", async () => {
    const world = new World();
    const session = world.connect({ after: 0 });
    const seen = collect(session, "session_updated");
    const sent = session.message("x");
    world.socket.begin();
    const [{ id }] = world.socket.commands;
    world.socket.durable(1);
    for (let turn = 0; turn < 3; turn += 1) {
      world.socket.cut();
      await world.advance(turn < 2 ? 500 : 0);
    }
    assert.equal(world.source.query.get("after"), "e.1");
    world.source.event("connected", { cursor: "e.1" });
    world.source.durable(1);
    world.source.durable(2);
    world.source.event("sync", { from: "e.1", through: "e.2" });
    assert.equal(world.requests[0].url, "http://host/sessions/s1/commands?client_id=c");
    assert.equal(JSON.parse(world.requests[0].options.body).id, id);
    world.requests[0].answer(answer(200, { id, status: "accepted" }));
    assert.equal((await sent).id, id);
    assert.deepEqual(seen.map((event) => event.seq), [1, 2]);
  });

  it("remembers in the page's storage what worked", async () => {
    const world = new World();
    world.connect({ after: 0 });
    world.socket.cut();
    await world.advance(0);
    world.source.begin();
    assert.equal(world.connect({ after: 0 }).transport, "sse");
  });

  it("does without storage", () => {
    const world = new World();
    const broken = () => { throw new Error("forbidden"); };
    world.env.storage = { getItem: broken, setItem: broken };
    const session = world.connect();
    world.socket.begin();
    assert.equal(session.state, "open");
  });

  for (const [name, transport] of [["auto", "auto"], ["websocket", "websocket"], ["sse", "sse"]]) {
    it(`regression 27: cannot loop fast while everything fails (${name})`, async () => {
      const world = new World();
      world.connect({ transport });
      const attempts = () => world.sockets.length + world.sources.length;
      for (let moment = 0; moment < 10_000; moment += 10) {
        for (const link of [...world.sockets, ...world.sources]) if (!link.closed) link.cut();
        await world.advance(10);
        if (moment < 500) assert.ok(attempts() <= 3, `${attempts()} attempts in ${moment} ms`);
      }
      assert.ok(attempts() >= 5 && attempts() <= 40, `${attempts()}`);
    });
  }

  it("regression 27: cannot loop fast when each connection works and then breaks", async () => {
    const world = new World();
    world.randomness = 0.5;
    world.connect({ after: 0 });
    for (let moment = 0; moment < 20_000; moment += 100) {
      for (const link of [...world.sockets, ...world.sources]) {
        if (link.closed) continue;
        link.begin();
        link.closed = true;
        link.cut();
      }
      await world.advance(100);
    }
    const attempts = world.sockets.length + world.sources.length;
    assert.ok(attempts >= 5 && attempts <= 15, `${attempts}`);
  });
});

describe("a session over SSE", () => {
  it("opens and closes EventSource itself, with its cursor", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse", after: 0 });
    world.source.begin();
    world.source.durable(1);
    const first = world.source;
    first.cut();
    assert.equal(first.closed, true);
    await world.advance(500);
    assert.equal(world.sources.length, 2);
    assert.equal(world.source.query.get("after"), "e.1");
    world.source.begin({ cursor: "e.1" });
    assert.equal(session.state, "open");
  });

  it("regression 05: formats of both transports are read by one piece of code", () => {
    const world = new World();
    const heard = (transport) => {
      const session = world.connect({ transport, after: 0 });
      const seen = collect(session);
      const link = transport === "sse" ? world.source : world.socket;
      link.begin();
      link.durable(1, "message_created", { message_id: "m", role: "user", content: "x" });
      link.event("message_delta", { message_id: "n", attempt: 1, part: "content", offset: 0, text: "y" });
      return seen;
    };
    assert.deepEqual(heard("sse"), heard("websocket"));
  });

  it("reopens after two silent intervals", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    world.source.begin({ heartbeat_interval_ms: 10_000 });
    await world.advance(15_000);
    world.source.event("heartbeat");
    await world.advance(15_000);
    assert.equal(session.state, "open");
    await world.advance(5_000);
    assert.equal(session.state, "reconnecting");
    assert.equal(world.requests.length, 0, "no pings over POST");
  });

  it("regression 39: a stream that the browser never opens does not hang the session", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    const changes = collect(session, "state");
    await world.advance(10_000);
    assert.equal(world.source.closed, true);
    assert.equal(changes[0].reason, "silent");
  });

  it("asks with fetch why EventSource was refused", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    world.source.refuse();
    world.requests[0].answer(answer(410));
    await settled();
    assert.deepEqual([session.state, session.error.code], ["closed", "session_gone"]);
  });

  it("waits as long as a refused stream was told to", async () => {
    const world = new World();
    world.connect({ transport: "sse" });
    world.source.refuse();
    world.requests[0].answer(answer(503, undefined, { "Retry-After": "3" }));
    await world.advance(2999);
    assert.equal(world.sources.length, 1);
    await world.advance(1);
    assert.equal(world.sources.length, 2);
  });

  it("with a token reads by fetch, which can carry it", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse", token: "t0ken", after: 0 });
    const [{ url, options, answer: respond }] = world.requests;
    assert.equal(options.headers.Authorization, "Bearer t0ken");
    assert.equal(url.includes("t0ken"), false);
    const stream = streaming();
    respond(stream.response);
    stream.event({ event_type: "connected", payload: { cursor: "e.0", client_id: "c" } });
    stream.event({ event_type: "sync", payload: { from: "e.0", through: "e.0" } });
    await settled();
    await settled();
    assert.equal(session.state, "open");
    stream.end();
    await settled();
    await settled();
    assert.equal(session.state, "reconnecting");
  });

  it("reads by fetch after a hole, as EventSource hides events it does not know", async () => {
    const world = new World();
    world.connect({ transport: "sse", after: 0 });
    world.source.begin();
    world.source.durable(1, "hologram_projected");
    world.source.durable(2);
    await world.advance(500);
    assert.equal(world.sources.length, 1);
    assert.equal(world.requests[0].url.includes("after=e.0"), true);
  });

  it("posts commands in order and regression 26: takes nothing but an acknowledgement for one", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    world.source.begin();
    const first = session.message("one");
    session.message("two").catch(() => {});
    const body = (index) => JSON.parse(world.requests[index].options.body);
    assert.equal(world.requests.length, 1);
    world.requests[0].answer(answer(204));
    await world.advance(500);
    assert.equal(body(1).id, body(0).id);
    world.requests[1].answer(answer(200, { welcome: "to the hotel's network" }));
    await world.advance(1000);
    world.requests[2].fail(new TypeError("network"));
    await world.advance(1000);
    world.requests[3].answer(answer(200, { id: body(0).id, status: "accepted" }));
    await first;
    await settled();
    assert.deepEqual([body(2).id, body(3).id, body(4).content], [body(0).id, body(0).id, "two"]);
  });

  it("does not listen to a POST of a connection that is gone", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    world.source.begin();
    const sent = session.message("one");
    world.source.cut();
    await world.advance(500);
    world.source.begin();
    assert.equal(world.requests.length, 2);
    const { id } = JSON.parse(world.requests[1].options.body);
    world.requests[0].answer(answer(503, { code: "unavailable", detail: "away" }));
    await world.advance(5000);
    assert.equal(world.requests.length, 2);
    world.requests[1].answer(answer(200, { id, status: "accepted" }));
    assert.equal((await sent).id, id);
  });

  it("repeats what a busy server refused and reports the rest", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse" });
    world.source.begin();
    const sent = session.message("one");
    world.requests[0].answer(answer(429, { code: "queue_full", detail: "full", retry_after: 2 }));
    await world.advance(1999);
    assert.equal(world.requests.length, 1);
    await world.advance(1);
    world.requests[1].answer(answer(422, { code: "invalid", detail: "no such agent", path: "$.agent_type" }));
    await assert.rejects(sent, { code: "invalid", path: "$.agent_type", message: "no such agent" });
  });
});

describe("REST", () => {
  it("creates a session", async () => {
    const world = new World();
    const made = createSession({ url: "http://host/", token: "t", agent_type: "coder" }, world.env);
    const [{ url, options, answer: respond }] = world.requests;
    assert.deepEqual([url, options.method, options.body], ["http://host/sessions", "POST", '{"agent_type":"coder"}']);
    assert.equal(options.headers.Authorization, "Bearer t");
    respond(answer(201, { session_id: "s9" }));
    assert.equal((await made).session_id, "s9");
  });

  it("gives up on an answer that does not come", async () => {
    const world = new World();
    const asked = request("/sessions", { url: "http://host", timeoutMs: 100 }, world.env);
    const rejected = assert.rejects(asked, /aborted/);
    await world.advance(100);
    await rejected;
  });
});

describe("tickets", () => {
  it("open each stream anew, where the page has no token", async () => {
    const world = new World();
    let tickets = 0;
    world.connect({ transport: "sse", ticket: async (session) => `${session}-${(tickets += 1)}` });
    await settled();
    assert.equal(world.source.query.get("ticket"), "s1-1");
    world.source.begin();
    world.source.cut();
    await world.advance(1_000);
    assert.equal(world.sources.length, 2);
    assert.equal(world.source.query.get("ticket"), "s1-2");
  });

  it("stand in for a token that is no name of a subprotocol", async () => {
    const world = new World();
    world.connect({ token: "spaces and = signs" });
    const [asked] = world.requests;
    assert.equal(asked.url, "http://host/auth/tickets");
    assert.equal(asked.options.headers.Authorization, "Bearer spaces and = signs");
    assert.deepEqual(JSON.parse(asked.options.body), { session_id: "s1" });
    asked.answer(answer(201, { ticket: "T" }));
    await settled();
    assert.equal(world.socket.query.get("ticket"), "T");
    assert.deepEqual(world.socket.protocols, ["parley.v1.json"]);
  });

  it("that are refused end the session, that cannot be had are asked for again", async () => {
    const world = new World();
    const session = world.connect({ token: "= =" });
    world.requests[0].fail(new Error("offline"));
    await world.advance(1_000);
    world.requests.at(-1).answer(answer(401, { code: "unauthorized", detail: "no" }));
    await settled();
    assert.equal(session.error.code, "unauthorized");
  });

  it("that were used up say nothing about the session", async () => {
    const world = new World();
    const session = world.connect({ transport: "sse", ticket: () => "T" });
    await settled();
    world.source.refuse();
    assert.equal(world.requests.length, 0);
    assert.equal(session.state, "connecting");
  });

  it("that come late open nothing", async () => {
    const world = new World();
    let give;
    const session = world.connect({ ticket: () => new Promise((resolve) => { give = resolve; }) });
    session.close();
    give("T");
    await settled();
    assert.equal(world.sockets.length, 0);
  });
});

// Many tabs of one browser that have to use event streams: no more at a time than a browser opens connections.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { World, answer, settled } from "./support.js";

/** What the tabs of a browser share. */
class Browser {
  #held = new Map();
  channels = [];

  tab() {
    const world = new World();
    const browser = this;
    world.hidden = false;
    world.shown = [];
    Object.assign(world.env, {
      hidden: () => world.hidden,
      shown: (fn) => world.shown.push(fn),
      channel: () => {
        const channel = { close() {}, postMessage: (data) => { for (const other of browser.channels) if (other !== channel) other.onmessage?.({ data }); } };
        browser.channels.push(channel);
        return channel;
      },
      locks: { request: (name, options, work) => browser.#request(name, options, work) },
    });
    return world;
  }

  async #request(name, { ifAvailable, signal }, work) {
    if (this.#held.has(name)) {
      if (ifAvailable) return work(null);
      await new Promise((resolve, reject) => {
        this.#held.get(name).push(resolve);
        signal.addEventListener("abort", () => reject(signal.reason));
      });
      if (signal.aborted) throw signal.reason;
    }
    const queue = this.#held.get(name) ?? [];
    this.#held.set(name, queue);
    try {
      return await work({ name });
    } finally {
      if (queue.length) queue.shift()();
      else this.#held.delete(name);
    }
  }
}

async function open(world, options = {}) {
  const session = world.connect({ transport: "sse", ...options });
  await settled();
  world.source?.begin();
  await settled();
  return session;
}

describe("regression 39: many tabs", () => {
  it("open no more streams than leave room for requests, and go on as soon as one is free", async () => {
    const browser = new Browser();
    const worlds = Array.from({ length: 6 }, () => browser.tab());
    const sessions = [];
    for (const world of worlds) sessions.push(await open(world));
    assert.deepEqual(worlds.map((world) => world.sources.length), [1, 1, 1, 1, 0, 0]);
    assert.equal(sessions[4].state, "connecting");
    await worlds[4].advance(600_000);
    assert.equal(worlds[4].sources.length, 0, "it waits, and tries nothing");
    sessions[0].close();
    await settled();
    assert.equal(worlds[4].sources.length + worlds[5].sources.length, 1);
  });

  it("that nobody looks at make room, and come back when somebody does", async () => {
    const browser = new Browser();
    const hidden = browser.tab();
    const resting = await open(hidden);
    hidden.source.durable(1);
    for (let number = 0; number < 3; number += 1) await open(browser.tab());
    hidden.hidden = true;
    const fifth = browser.tab();
    const reasons = [];
    const session = fifth.connect({ transport: "sse" });
    session.on("state", ({ reason }) => reasons.push(reason));
    await settled();
    assert.match(reasons[0], /other tabs hold all event streams/);
    assert.equal(hidden.source.closed, true);
    assert.equal(resting.state, "reconnecting");
    assert.equal(fifth.sources.length, 1);
    session.close();
    hidden.hidden = false;
    for (const fn of hidden.shown) fn();
    await settled();
    assert.equal(hidden.sources.length, 2);
    assert.equal(hidden.source.query.get("after"), "e.1", "from where it stood");
  });

  it("that rest get up to send, and do not rest while agents count on them", async () => {
    const browser = new Browser();
    const tabs = [browser.tab(), browser.tab(), browser.tab(), browser.tab()];
    const sessions = [];
    for (const tab of tabs) {
      sessions.push(await open(tab));
      tab.hidden = true;
    }
    const offered = sessions[1].registerTools([{ name: "t", parameters: {}, run: () => 1 }]);
    const [{ options, answer: respond }] = tabs[1].requests;
    respond(answer(200, { id: JSON.parse(options.body).id, status: "accepted" }));
    await offered;
    const late = browser.tab();
    const visitor = await open(late);
    assert.deepEqual(sessions.map((session) => session.state), ["reconnecting", "open", "reconnecting", "reconnecting"]);
    visitor.close();
    sessions[0].message("hello");
    await settled();
    assert.equal(tabs[0].sources.length, 2);
  });

  it("count nothing where one connection carries many streams", async () => {
    const browser = new Browser();
    const worlds = Array.from({ length: 8 }, () => browser.tab());
    for (const world of worlds) {
      world.env.multiplexed = () => true;
      await open(world);
    }
    assert.equal(worlds.every((world) => world.sources.length === 1), true);
  });
});

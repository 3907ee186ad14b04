// A world for parley.js without a browser: time that moves when told, sockets that do what the test says.

import { Session } from "../../server/web/parley.js";

export class World {
  now = 1_000_000;
  randomness = 0;
  /** @type {FakeSocket[]} */
  sockets = [];
  /** @type {FakeSource[]} */
  sources = [];
  /** @type {{url: string, options: any, answer: (response: any) => void, fail: (error: Error) => void}[]} */
  requests = [];
  #timers = [];
  #ids = 0;
  #memory = new Map();

  constructor() {
    const world = this;
    this.env = {
      now: () => world.now,
      random: () => world.randomness,
      uuid: () => `id-${(world.#ids += 1)}`,
      setTimeout: (fn, ms) => {
        const timer = { at: world.now + ms, fn };
        world.#timers.push(timer);
        return timer;
      },
      clearTimeout: (timer) => { world.#timers = world.#timers.filter((one) => one !== timer); },
      storage: { getItem: (key) => world.#memory.get(key) ?? null, setItem: (key, value) => world.#memory.set(key, value) },
      fetch: (url, options) => new Promise((answer, fail) => {
        options.signal?.addEventListener("abort", () => fail(new Error("aborted")));
        world.requests.push({ url, options, answer, fail });
      }),
      WebSocket: class extends FakeSocket {
        constructor(url, protocols) {
          super(url, protocols);
          world.sockets.push(this);
        }
      },
      EventSource: class extends FakeSource {
        constructor(url) {
          super(url);
          world.sources.push(this);
        }
      },
    };
  }

  /** Moves time, firing what falls due on the way, in order. */
  async advance(ms) {
    await settled();
    const end = this.now + ms;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.now = Math.max(this.now, due.at);
      this.env.clearTimeout(due);
      due.fn();
      await settled();
    }
    this.now = end;
    await settled();
  }

  connect(options = {}) {
    return new Session({ session: "s1", url: "http://host", ...options }, this.env);
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get source() {
    return this.sources.at(-1);
  }
}

/** Every promise that is ready has run its course. */
export function settled() {
  return new Promise((resolve) => { setImmediate(resolve); });
}

class Link {
  closed = false;
  constructor(url) {
    this.url = url;
    this.query = new URL(url).searchParams;
  }

  /** `connected`, then `sync`. */
  begin({ cursor = "e.0", through = cursor, ...payload } = {}) {
    this.event("connected", { client_id: "c", cursor, limits: {}, heartbeat_interval_ms: 15_000, ...payload });
    this.event("sync", { from: cursor, through });
  }

  durable(seq, type = "session_updated", payload = {}, epoch = "e") {
    this.frame({ event_type: type, session_id: "s1", timestamp: "t", seq, cursor: `${epoch}.${seq}`, payload });
  }

  event(type, payload = {}) {
    this.frame({ event_type: type, session_id: "s1", timestamp: "t", payload });
  }
}

class FakeSocket extends Link {
  sent = [];
  constructor(url, protocols) {
    super(url);
    this.protocols = protocols;
  }

  get commands() {
    return this.sent.map((text) => JSON.parse(text));
  }

  send(text) {
    this.sent.push(text);
  }

  frame(envelope) {
    this.onmessage?.({ data: JSON.stringify(envelope) });
  }

  close() {
    this.closed = true;
  }

  cut(code = 1006, reason = "") {
    this.onclose?.({ code, reason });
  }
}

class FakeSource extends Link {
  readyState = 0;
  #listeners = new Map();

  addEventListener(type, listener) {
    this.#listeners.set(type, listener);
  }

  frame(envelope) {
    // As in a browser: an event whose name nobody listens for is not heard.
    this.readyState = 1;
    this.#listeners.get(envelope.event_type)?.({ data: JSON.stringify(envelope) });
  }

  close() {
    this.closed = true;
    this.readyState = 2;
  }

  cut() {
    this.readyState = 0;
    this.onerror?.({});
  }

  refuse() {
    this.readyState = 2;
    this.onerror?.({});
  }
}

/** An HTTP answer as `request` reads it. */
export function answer(status, body, headers = {}) {
  return {
    status, ok: status >= 200 && status < 300, body: null,
    headers: { get: (name) => headers[name] ?? null },
    text: async () => (body === undefined ? "" : JSON.stringify(body)),
  };
}

/** An event stream whose bytes the test gives out. */
export function streaming() {
  let control;
  const body = new ReadableStream({ start(controller) { control = controller; } });
  return {
    response: { status: 200, ok: true, body, headers: { get: () => null } },
    write: (text) => control.enqueue(new TextEncoder().encode(text)),
    event: (envelope) => control.enqueue(new TextEncoder().encode(`event: ${envelope.event_type}\ndata: ${JSON.stringify(envelope)}\n\n`)),
    end: () => control.close(),
  };
}

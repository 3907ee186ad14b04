/**
 * Parley's browser client: one session as one object, over WebSocket where that works and over
 * EventSource with POST where it does not. No dependencies, no build step.
 *
 *     import { connect, createSession, Conversation } from "/parley.js";
 *     const { session_id } = await createSession();
 *     const session = connect({ session: session_id, after: 0 });
 *     const conversation = new Conversation().follow(session);
 *     conversation.on("change", () => draw(conversation.messages));
 *     await session.message("Hello");
 *
 * The file has three parts. The first is pure: positions in the log, delta assembly, back-off, the choice
 * of a transport, the waiting commands, the view of a conversation. The second carries frames: one small
 * class a transport, the same interface on both. The third, `Session`, joins them. Everything from outside
 * (sockets, fetch, timers, the clock, randomness, storage) comes in through `Environment`.
 */

// ---------------------------------------------------------------------------------------------- types

/**
 * One frame from the server. Durable ones carry `seq` and `cursor`.
 * @typedef {{event_type: string, session_id: string, timestamp: string, payload: any, seq?: number,
 *   cursor?: string}} Envelope
 *
 * A command's reply, sent after its transaction committed (or at once when the command is not stored).
 * @typedef {{id: string, status: string, seq?: number, message_id?: string, turn_id?: string}} Ack
 *
 * @typedef {{type: string, id?: string, [field: string]: any}} Command
 * @typedef {"websocket"|"sse"} Transport
 * @typedef {"connecting"|"open"|"reconnecting"|"closed"} State
 * @typedef {{state: State, transport: Transport, reason: string|null, retryInMs: number|null,
 *   error: ParleyError|null}} StateChange
 *
 * Why a connection ended. `why` is ours (`gap`, `silent`, `silence`, `unacknowledged`, `malformed`), `code`
 * and `reason` a WebSocket's, `status` an HTTP answer's.
 * @typedef {{why?: string, code?: number, reason?: string, status?: number, retryAfterMs?: number,
 *   error?: unknown}} Ending
 *
 * @typedef {{
 *   WebSocket?: any, EventSource?: any, fetch: typeof fetch, random: () => number, now: () => number,
 *   setTimeout: (fn: () => void, ms: number) => any, clearTimeout: (handle: any) => void,
 *   uuid: () => string, storage: {getItem(key: string): string|null, setItem(key: string, value: string): void}|null
 * }} Environment
 *
 * @typedef {{
 *   session: string,
 *   url?: string,
 *   token?: string|(() => string|undefined),
 *   after?: string|number|null,
 *   transport?: "auto"|Transport,
 *   clientId?: string,
 *   timings?: Partial<typeof TIMINGS>
 * }} ConnectOptions
 */

/** Milliseconds, all of them. Documented in README.md beside this file. */
export const TIMINGS = Object.freeze({
  connectedWebSocket: 4_000, // upgrade and `connected`; later than this the socket is taken for dead
  connectedSse: 10_000, // longer: with six streams open a browser queues the seventh without a word
  stable: 10_000, // a connection that lived this long after `sync` forgives earlier failures
  backoffFloor: 500,
  backoffCeiling: 20_000,
  acknowledge: 20_000, // a command without an answer for so long: the connection is suspect
  webSocketAgain: 300_000, // after falling back, the next reconnect past this tries WebSocket again
  heartbeat: 15_000, // until `connected` says otherwise
});

/** Refusals of one command that are worth repeating before the caller is told. */
const COMMAND_TRIES = 8;

/** Every name this file knows; EventSource delivers only names that somebody listens for. */
const EVENT_TYPES = [
  "message_created", "task_started", "task_completed", "task_cancelling", "turn_error", "direct_agent_call",
  "agent_switched", "tool_call", "tool_dispatched", "tool_result", "approval_required", "approval_resolved",
  "queue_changed", "session_updated", "message_delta", "agent_status_changed", "presence_changed",
  "approval_timeout_warning", "tool_progress", "warning", "connected", "sync", "ack", "command_error",
  "resync_required", "disconnect", "heartbeat",
];

/** A refusal by the server, or the end of the session. `code` is one of the server's error codes, or `closed`. */
export class ParleyError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{path?: string, status?: number, retryAfterMs?: number, id?: string}} [more]
   */
  constructor(code, message, more = {}) {
    super(message);
    this.name = "ParleyError";
    this.code = code;
    /** Which field of the command was at fault, like `$.content`. */
    this.path = more.path;
    this.status = more.status;
    this.retryAfterMs = more.retryAfterMs;
    this.id = more.id;
  }

  /** Whether the same command, sent again later, may be accepted. */
  get retryable() {
    return this.retryAfterMs !== undefined || ["unavailable", "rate_limited"].includes(this.code)
      || [429, 502, 503, 504].includes(this.status ?? 0);
  }
}

// ------------------------------------------------------------------------------- pure: place in the log

/**
 * `<epoch>.<seq>` or a bare number. To applications a cursor is opaque; this library compares sequence
 * numbers, because that is how it proves that nothing was lost.
 * @param {string|number} cursor
 * @returns {{epoch: string|null, seq: number}}
 */
export function parseCursor(cursor) {
  const text = String(cursor);
  const dot = text.lastIndexOf(".");
  const seq = Number(text.slice(dot + 1));
  if (!Number.isSafeInteger(seq) || seq < 0) throw new ParleyError("invalid", `not a cursor: ${text}`);
  return { epoch: dot < 0 ? null : text.slice(0, dot), seq };
}

/** Where a client stands in the log: lets each durable event through once and in order, and notices holes. */
export class Sequencer {
  /** @type {{epoch: string|null, seq: number}|null} */
  #place;

  /** @param {string|number|null} [after] nothing: begin now */
  constructor(after = null) {
    this.#place = after === null || after === undefined ? null : parseCursor(after);
  }

  /** What to ask for with `after=` when connecting again; null before anything is known. */
  get cursor() {
    if (this.#place === null) return null;
    return this.#place.epoch === null ? String(this.#place.seq) : `${this.#place.epoch}.${this.#place.seq}`;
  }

  get seq() {
    return this.#place?.seq ?? null;
  }

  /**
   * Takes note of the cursor in `connected`.
   * @param {string|undefined} cursor
   * @returns {boolean} whether the log is another one than ours, so that all that was seen must be read anew
   */
  connected(cursor) {
    if (cursor === undefined) return false;
    const start = parseCursor(cursor);
    const moved = this.#place !== null && this.#place.epoch !== null && this.#place.epoch !== start.epoch;
    if (this.#place === null || moved) this.#place = start;
    else this.#place.epoch = start.epoch;
    return moved;
  }

  /** @param {string} cursor where the server says that we stand now */
  resync(cursor) {
    this.#place = parseCursor(cursor);
  }

  /**
   * @param {{seq?: number, cursor?: string}} event a durable one
   * @returns {"deliver"|"duplicate"|"gap"}
   */
  accept(event) {
    const seq = /** @type {number} */ (event.seq);
    const epoch = event.cursor === undefined ? this.#place?.epoch ?? null : parseCursor(event.cursor).epoch;
    if (this.#place !== null) {
      if (this.#place.epoch !== null && epoch !== this.#place.epoch) return "gap";
      if (seq <= this.#place.seq) return "duplicate";
      if (seq > this.#place.seq + 1) return "gap";
    }
    this.#place = { epoch, seq };
    return "deliver";
  }

  /**
   * @param {string|number|undefined} through the last event of the replay, from `sync`
   * @returns {boolean} whether all of it has been seen; a hole at the very end shows nowhere else
   */
  complete(through) {
    if (through === undefined || through === null) return true;
    const end = parseCursor(through);
    if (this.#place === null) this.#place = end;
    return this.#place.seq >= end.seq;
  }
}

// ------------------------------------------------------------------------------ pure: text from deltas

/**
 * The text of one message while it is being written. JavaScript's string length counts UTF-16 code units,
 * which is what the wire's offsets count.
 */
export class MessageText {
  /** @type {number|null} */
  attempt = null;
  /** @type {Map<string, string>} */
  #parts = new Map();

  get content() {
    return this.#parts.get("content") ?? "";
  }

  get reasoning() {
    return this.#parts.get("reasoning") ?? "";
  }

  /** Arguments of the tool calls begun so far, in order. */
  get calls() {
    return [...this.#parts].filter(([key]) => key.startsWith("arguments:"))
      .map(([key, text]) => ({ call_id: key.slice("arguments:".length), arguments: text }));
  }

  /**
   * @param {{attempt: number, part: string, call_id?: string, offset: number, text: string}} delta
   * @returns {"appended"|"ignored"|"gap"|"restarted"} `gap`: some text was missed; the next merged delta or
   *   the durable message heals it
   */
  apply(delta) {
    if (this.attempt !== null && delta.attempt < this.attempt) return "ignored";
    const restarted = this.attempt !== null && delta.attempt > this.attempt;
    if (restarted) this.#parts.clear();
    this.attempt = delta.attempt;
    const key = delta.part === "arguments" ? `arguments:${delta.call_id ?? ""}` : delta.part;
    const known = this.#parts.get(key) ?? "";
    if (delta.offset > known.length) return restarted ? "restarted" : "gap";
    if (known.length >= delta.offset + delta.text.length) return restarted ? "restarted" : "ignored";
    this.#parts.set(key, known + delta.text.slice(known.length - delta.offset));
    return restarted ? "restarted" : "appended";
  }
}

// --------------------------------------------------------------------------------------- pure: patience

/** Full jitter between a floor and a doubling ceiling. The floor is never undercut: no loop can run fast. */
export class Backoff {
  #attempt = 0;
  #random;
  #floor;
  #ceiling;

  /** @param {{random?: () => number, floor?: number, ceiling?: number}} [options] milliseconds */
  constructor({ random = Math.random, floor = TIMINGS.backoffFloor, ceiling = TIMINGS.backoffCeiling } = {}) {
    this.#random = random;
    this.#floor = floor;
    this.#ceiling = ceiling;
  }

  /**
   * @param {number} [retryAfterMs] the server's wish: never earlier, and up to half as long again, because
   *   every client of a restarting server was told the same number
   * @returns {number} milliseconds to wait
   */
  next(retryAfterMs = 0) {
    const top = Math.min(this.#ceiling, this.#floor * 2 ** (this.#attempt + 1));
    this.#attempt = Math.min(this.#attempt + 1, 16);
    const own = this.#floor + this.#random() * (top - this.#floor);
    return Math.round(Math.max(own, retryAfterMs * (1 + this.#random() / 2)));
  }

  reset() {
    this.#attempt = 0;
  }
}

/** @type {Record<number, string>} */
const CLOSE_NAMES = {
  4500: "unauthorized", 4501: "forbidden", 4502: "session_gone", 4503: "protocol_error", 4504: "replaced",
};

/**
 * What the end of a connection means.
 * @param {Ending} ending
 * @param {{code?: string, reason?: string, reconnect?: boolean, retry_after_ms?: number}|null} advice the
 *   in-band `disconnect`, which knows better than any code
 * @returns {{reconnect: boolean, retryAfterMs: number|undefined, code: string, message: string}}
 */
export function judge(ending, advice) {
  const inReason = /retry_after_ms\D{0,4}(\d+)/.exec(ending.reason ?? "");
  const retryAfterMs = advice?.retry_after_ms ?? ending.retryAfterMs ?? (inReason ? Number(inReason[1]) : undefined);
  if (advice) {
    const code = advice.code ?? "disconnect";
    return { reconnect: advice.reconnect !== false, retryAfterMs, code, message: advice.reason || code };
  }
  const { code = 0, status = 0 } = ending;
  if (status > 0) {
    const names = { 204: "closed", 401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "session_gone" };
    const name = names[/** @type {keyof typeof names} */ (status)] ?? "refused";
    const again = status >= 500 || status === 408 || status === 425 || status === 429 || status === 200;
    return { reconnect: again, retryAfterMs, code: name, message: ending.reason || `the server answered ${status}` };
  }
  const final = (code >= 4500 && code <= 4999) || [1002, 1007, 1009].includes(code);
  const name = CLOSE_NAMES[code] ?? ending.why ?? "connection_lost";
  const message = ending.reason || ending.why || (code ? `connection closed (${code})` : "connection lost");
  return { reconnect: !final, retryAfterMs, code: name, message };
}

/**
 * Which transport to try next. WebSocket first. It is given up for SSE when the upgrade fails, when nothing
 * comes through it, or when it is cut again and again soon after; a socket that worked before gets more
 * chances, because then it is more likely the server that is away. While neither works they take turns.
 */
export class TransportChoice {
  #mode;
  #again;
  #now;
  #memory;
  #strikes = 0;
  #proven = false;
  /** @type {Transport} */
  #next = "websocket";
  #notBefore = 0; // when, on SSE, WebSocket is worth another try

  /**
   * @param {{mode?: "auto"|Transport, webSocketAgain?: number, now?: () => number,
   *   memory?: {load(): any, save(value: any): void}}} [options]
   */
  constructor({ mode = "auto", webSocketAgain = TIMINGS.webSocketAgain, now = Date.now, memory } = {}) {
    this.#mode = mode;
    this.#again = webSocketAgain;
    this.#now = now;
    this.#memory = memory;
    const known = memory?.load();
    const age = typeof known?.at === "number" ? now() - known.at : -1;
    if (known?.transport === "sse" && age >= 0 && age < webSocketAgain) {
      this.#next = "sse";
      this.#notBefore = known.at + webSocketAgain;
    }
  }

  /** @returns {Transport} */
  pick() {
    return this.#mode === "auto" ? this.#next : this.#mode;
  }

  /** @param {Transport} transport it has brought a whole replay */
  worked(transport) {
    if (transport === "websocket") {
      this.#proven = true;
    } else {
      this.#strikes = 0;
      this.#next = "sse";
      this.#notBefore = this.#proven ? 0 : this.#now() + this.#again;
    }
    this.#memory?.save({ transport, at: this.#now() });
  }

  /** The connection has lived long enough to forgive what went before. */
  stable() {
    this.#strikes = 0;
  }

  /**
   * A connection ended and the server did not say why.
   * @param {Transport} transport
   * @param {"opening"|"syncing"|"live"} phase how far it had come; `live` only when it did not live long
   * @returns {boolean} whether the other transport should be tried at once
   */
  failed(transport, phase) {
    if (transport === "sse") {
      if (phase !== "live" || this.#now() >= this.#notBefore) this.#next = "websocket";
      return false;
    }
    this.#strikes += 1;
    const allowed = this.#proven || phase === "live" ? 3 : phase === "syncing" ? 2 : 1;
    if (this.#strikes < allowed) return false;
    this.#strikes = 0;
    this.#next = "sse";
    return this.#mode === "auto";
  }

  /** A connection ended for a known reason, which says nothing against its transport. */
  ended() {
    if (this.#next === "sse" && this.#now() >= this.#notBefore) this.#next = "websocket";
  }
}

// ------------------------------------------------------------------------------- pure: commands waiting

/**
 * Commands that the server has not acknowledged, in order. One is under way at a time: a refusal that is
 * repeated later must not let the next command overtake it.
 */
export class Outbox {
  /** @type {{command: Command & {id: string}, promise: Promise<Ack>, resolve: (ack: Ack) => void,
   *   reject: (error: Error) => void, underWay: boolean, refusals: number, backoff: Backoff}[]} */
  #entries = [];
  #newBackoff;

  /** @param {() => Backoff} [newBackoff] */
  constructor(newBackoff = () => new Backoff()) {
    this.#newBackoff = newBackoff;
  }

  get size() {
    return this.#entries.length;
  }

  get underWay() {
    return this.#entries[0]?.underWay ?? false;
  }

  /**
   * @param {Command & {id: string}} command
   * @returns {Promise<Ack>} the same one when the id waits already
   */
  add(command) {
    const known = this.#entries.find((entry) => entry.command.id === command.id);
    if (known) return known.promise;
    /** @type {any} */
    const entry = { command, underWay: false, refusals: 0, backoff: this.#newBackoff() };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.#entries.push(entry);
    return entry.promise;
  }

  /** The next command to put on the wire, now under way; null while one is, or none waits. */
  take() {
    const entry = this.#entries[0];
    if (!entry || entry.underWay) return null;
    entry.underWay = true;
    return entry.command;
  }

  /** @param {Ack} ack @returns {boolean} whether it answered one of ours */
  acknowledge(ack) {
    const index = this.#entries.findIndex((entry) => entry.command.id === ack.id);
    if (index < 0) return false;
    this.#entries.splice(index, 1)[0].resolve(ack);
    return true;
  }

  /**
   * @param {string|undefined} id the one under way when the server could not read it
   * @param {ParleyError} error
   * @returns {number|null} milliseconds after which to send it again; null: the caller has been told
   */
  refuse(id, error) {
    const index = id === undefined ? 0 : this.#entries.findIndex((entry) => entry.command.id === id);
    const entry = this.#entries[index];
    if (!entry || !entry.underWay) return null;
    entry.refusals += 1;
    if (error.retryable && entry.refusals < COMMAND_TRIES) return entry.backoff.next(error.retryAfterMs);
    this.#entries.splice(index, 1);
    entry.reject(error);
    return null;
  }

  /** Nobody knows whether the one under way arrived: it goes first again, with the same id. */
  rewind() {
    for (const entry of this.#entries) entry.underWay = false;
  }

  /** @param {Error} error what every waiting caller is told */
  abandon(error) {
    for (const entry of this.#entries.splice(0)) entry.reject(error);
  }
}

// ---------------------------------------------------------------------------------- pure: SSE from bytes

/** Server-sent events out of bytes that were split anywhere, in a line or in a character. */
export class SseParser {
  #decoder = new TextDecoder("utf-8");
  #rest = "";
  #afterCr = false;
  /** @type {string[]} */
  #data = [];
  #event = "";

  /**
   * @param {Uint8Array} bytes
   * @returns {{event: string, data: string}[]} the events completed by them
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    text = this.#rest + text;
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = /** @type {string} */ (lines.pop());
    const events = [];
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#event = "";
      return event;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    return null;
  }
}

// --------------------------------------------------------------------------------------------- listeners

/** `on(type, listener)`; `*` hears everything. A listener that throws is reported and harms nobody else. */
class Emitter {
  /** @type {Map<string, Set<(value: any) => void>>} */
  #listeners = new Map();

  /**
   * @param {string} type
   * @param {(value: any) => void} listener
   * @returns {() => void} takes the listener off again
   */
  on(type, listener) {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set.add(listener));
    return () => set.delete(listener);
  }

  /** @param {string} type @param {any} value */
  emit(type, value) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        queueMicrotask(() => { throw error; });
      }
    }
  }
}

// ----------------------------------------------------------------------------------- pure: a conversation

/**
 * @typedef {{call_id: string, name: string|null, arguments: string}} Call
 * @typedef {{
 *   message_id: string, role: string, content: string, reasoning: string, tool_calls: Call[], done: boolean,
 *   seq: number|null, finish_reason: string|null, timestamp: string, turn_id: string|null,
 *   agent_name: string|null, agent_type: string|null, call_id: string|null, name: string|null
 * }} Message
 */

/**
 * What a page shows of a session, kept up to date from its events: messages in the order of the log with
 * those being written at the end, the running turn, the queue, tool calls, the acting agent, who is here.
 * Listeners of `change` are told after each event that changed something.
 */
export class Conversation extends Emitter {
  /** @type {Message[]} */
  messages = [];
  /** The turn at work: `{turn_id, agent_type, agent_name, cancelling}`. @type {any} */
  turn = null;
  /** The last turn that failed: `{turn_id, code, message}`; forgotten when the next one starts. @type {any} */
  failure = null;
  /** Messages waiting for their turn: `{message_id, content}`. @type {any[]} */
  queue = [];
  /** Tool calls by id: `{name, arguments, result, error, done}`. @type {Map<string, any>} */
  calls = new Map();
  /** @type {string|null} */
  agent = null;
  /** @type {any} */
  session = null;
  /** @type {any[]} */
  clients = [];
  /** @type {Map<string, MessageText>} */
  #texts = new Map();
  #stale = false;

  /**
   * Keeps itself up to date from a session, also over a lost cursor (then it is read again over REST).
   * @param {Session} session
   * @returns {this}
   */
  follow(session) {
    session.on("*", (event) => this.apply(event));
    session.on("resync", ({ snapshot }) => {
      this.clear();
      this.#stale = !snapshot;
      if (snapshot) this.#take(snapshot);
      else this.#reread(session);
    });
    session.on("sync", () => this.#reread(session));
    return this;
  }

  /** @param {{session: any, messages: any[], queue?: any[]}} snapshot */
  #take({ session, messages, queue = [] }) {
    this.queue = [...queue];
    this.#about(session);
    this.restore(messages);
  }

  /** @param {any} session as the server describes it; what follows in the log is newer */
  #about(session) {
    this.session = session;
    this.agent = session?.current_agent ?? this.agent;
    if (session?.active_turn && !this.turn) {
      this.turn = { turn_id: session.active_turn, agent_type: this.agent, agent_name: null, cancelling: false };
    }
  }

  /** @param {Session} session */
  async #reread(session) {
    if (!this.#stale) return;
    this.#stale = false;
    try {
      this.restore(await session.history());
    } catch {
      this.#stale = true; // the server is away; the next `sync` reads it
    }
  }

  /** Forgets everything. */
  clear() {
    this.messages = [];
    this.turn = this.failure = null;
    this.queue = [];
    this.calls.clear();
    this.#texts.clear();
    this.emit("change", null);
  }

  /** @param {any[]} messages from the history, oldest first; those known already stay as they are */
  restore(messages) {
    const known = new Set(this.messages.map((message) => message.message_id));
    const older = messages.filter((message) => !known.has(message.message_id));
    const seqOf = (/** @type {any} */ { seq, cursor }) => seq ?? (cursor ? parseCursor(cursor).seq : null);
    this.messages.unshift(...older.map((message) => closed(message, seqOf(message), message.timestamp)));
    this.emit("change", null);
  }

  /**
   * @param {Envelope} event any; those it has no use for are ignored
   * @returns {boolean} whether something changed
   */
  apply(event) {
    const change = this.#change(event.event_type, event.payload ?? {}, event);
    if (change) this.emit("change", event);
    return change;
  }

  /** @param {string} type @param {any} payload @param {Envelope} event */
  #change(type, payload, event) {
    switch (type) {
      case "message_delta":
        return this.#delta(payload, event.timestamp);
      case "message_created":
        return this.#created(payload, event);
      case "connected":
        this.#about(payload.session);
        this.agent = payload.agent?.type ?? this.agent;
        this.clients = payload.clients ?? [];
        return true;
      case "presence_changed":
        this.clients = this.clients.filter((one) => one.client_id !== payload.client.client_id);
        if (payload.change !== "left") this.clients.push(payload.client);
        return true;
      case "task_started":
        this.turn = {
          turn_id: payload.turn_id, agent_type: payload.agent_type ?? null, agent_name: payload.agent_name ?? null,
          cancelling: false,
        };
        this.failure = null;
        return true;
      case "task_cancelling":
        if (this.turn?.turn_id === payload.turn_id) this.turn.cancelling = true;
        return true;
      case "task_completed":
        if (this.turn?.turn_id === payload.turn_id) this.turn = null;
        if (payload.error) this.failure = { turn_id: payload.turn_id, ...payload.error };
        return true;
      case "turn_error":
        this.failure = payload;
        return true;
      case "agent_switched":
        this.agent = payload.to_agent;
        return true;
      case "queue_changed":
        return this.#queued(payload);
      case "tool_call":
        this.calls.set(payload.call_id, { ...payload, done: false });
        return true;
      case "tool_result":
        this.calls.set(payload.call_id, { ...this.calls.get(payload.call_id), ...payload, done: true });
        return true;
      case "session_updated":
        this.session = { ...this.session, ...payload };
        return true;
      default:
        return false;
    }
  }

  /** @param {any} delta @param {string} timestamp */
  #delta(delta, timestamp) {
    let message = this.messages.find((one) => one.message_id === delta.message_id);
    if (message?.done) return false;
    const text = this.#texts.get(delta.message_id) ?? new MessageText();
    this.#texts.set(delta.message_id, text);
    if (text.apply(delta) === "ignored") return false;
    if (!message) {
      const { message_id } = delta;
      message = { ...closed({ role: "assistant", ...this.turn, message_id }, null, timestamp), done: false };
      this.messages.push(message);
    }
    message.content = text.content;
    message.reasoning = text.reasoning;
    message.tool_calls = text.calls.map((call) => ({ ...call, name: this.calls.get(call.call_id)?.name ?? null }));
    return true;
  }

  /** @param {any} payload @param {Envelope} event */
  #created(payload, event) {
    const index = this.messages.findIndex((one) => one.message_id === payload.message_id);
    if (index >= 0 && this.messages[index].done) return false;
    if (index >= 0) this.messages.splice(index, 1);
    this.#texts.delete(payload.message_id);
    this.queue = this.queue.filter((waiting) => waiting.message_id !== payload.message_id);
    // The log's order: behind all that is stored, before all that is still being written.
    const open = this.messages.findIndex((one) => !one.done);
    const message = closed(payload, event.seq ?? null, payload.timestamp ?? event.timestamp);
    this.messages.splice(open < 0 ? this.messages.length : open, 0, message);
    return true;
  }

  /** @param {any} payload */
  #queued(payload) {
    const { change, message_id: id, order } = payload;
    if (change === "added") this.queue.push({ message_id: id, content: payload.content ?? "" });
    else if (change === "reordered" && order) {
      this.queue.sort((a, b) => order.indexOf(a.message_id) - order.indexOf(b.message_id));
    } else this.queue = this.queue.filter((waiting) => waiting.message_id !== id);
    return true;
  }
}

/** @param {any} payload @param {number|null} seq @param {string} timestamp @returns {Message} */
function closed(payload, seq, timestamp) {
  return {
    message_id: payload.message_id, role: payload.role, content: payload.content ?? "",
    reasoning: payload.reasoning ?? "", tool_calls: payload.tool_calls ?? [], done: true, seq,
    finish_reason: payload.finish_reason ?? null, timestamp, turn_id: payload.turn_id ?? null,
    agent_name: payload.agent_name ?? null, agent_type: payload.agent_type ?? null,
    call_id: payload.call_id ?? payload.tool_call_id ?? null, name: payload.name ?? null,
  };
}

// ------------------------------------------------------------------------------------------------- links

/** @typedef {{frame: (envelope: Envelope) => void, end: (ending: Ending) => void}} Receiver */

/** Frames over a WebSocket. One message may hold several, a line each. */
class WebSocketLink {
  #socket;

  /** @param {Environment} env @param {string} url @param {string|undefined} token @param {Receiver} receiver */
  constructor(env, url, token, receiver) {
    // A token that is no legal subprotocol name makes this throw, and the fallback, with headers, takes it.
    const protocols = ["parley.v1.json", ...(token ? [`parley.bearer.${token}`] : [])];
    this.#socket = new env.WebSocket(url.replace(/^http/, "ws"), protocols);
    this.#socket.onmessage = (/** @type {{data: unknown}} */ message) => {
      for (const line of String(message.data).split("\n")) if (line) deliver(line, receiver);
    };
    this.#socket.onclose = (/** @type {{code: number, reason: string}} */ { code, reason }) => {
      receiver.end({ code, reason });
    };
  }

  /** @param {string} text */
  send(text) {
    this.#socket.send(text);
  }

  close() {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
  }
}

/**
 * Frames over server-sent events. EventSource neither sends headers, nor tells the status of a refusal, nor
 * shows events whose names nobody listens for; where one of these matters the stream is read with fetch.
 */
class SseLink {
  #env;
  #url;
  #token;
  #receiver;
  /** @type {any} */
  #source = null;
  #abort = new AbortController();

  /**
   * @param {Environment} env
   * @param {string} url
   * @param {string|undefined} token
   * @param {Receiver} receiver
   * @param {boolean} byFetch
   */
  constructor(env, url, token, receiver, byFetch) {
    this.#env = env;
    this.#url = url;
    this.#token = token;
    this.#receiver = receiver;
    if (byFetch || token || !env.EventSource) this.#read();
    else this.#listen();
  }

  #listen() {
    let heard = false;
    const source = this.#source = new this.#env.EventSource(this.#url);
    const onevent = (/** @type {{data: string}} */ message) => {
      heard = true;
      deliver(message.data, this.#receiver);
    };
    for (const type of ["message", ...EVENT_TYPES]) source.addEventListener(type, onevent);
    source.onerror = () => {
      if (source.readyState === 2 && !heard) this.#read();
      // Whoever hears this closes the source: its own reconnecting knows neither our cursor nor our patience.
      else this.#receiver.end({ why: "connection_lost" });
    };
  }

  async #read() {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream", ...bearer(this.#token) };
    try {
      const response = await this.#env.fetch(this.#url, { headers, signal: this.#abort.signal, cache: "no-store" });
      if (response.status !== 200 || !response.body) {
        return this.#receiver.end({ status: response.status, retryAfterMs: retryAfter(response) });
      }
      const parser = new SseParser();
      const reader = response.body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        for (const { data } of parser.feed(part.value)) deliver(data, this.#receiver);
      }
      return this.#receiver.end({ why: "connection_lost" });
    } catch (error) {
      return this.#receiver.end({ why: "connection_lost", error });
    }
  }

  close() {
    this.#source?.close();
    this.#abort.abort();
  }
}

/** @param {string} text @param {Receiver} receiver */
function deliver(text, receiver) {
  let envelope;
  try {
    envelope = JSON.parse(text);
  } catch {
    return receiver.end({ why: "malformed" });
  }
  if (typeof envelope?.event_type === "string") receiver.frame(envelope);
  return undefined;
}

/** @param {string|undefined} token @returns {Record<string, string>} */
function bearer(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** @param {{headers: {get(name: string): string|null}}} response @returns {number|undefined} milliseconds */
function retryAfter(response) {
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}

/** @returns {Environment} */
export function browserEnvironment() {
  const { WebSocket, EventSource, crypto } = /** @type {any} */ (globalThis);
  let storage = null;
  try {
    storage = globalThis.sessionStorage ?? null;
  } catch {
    // Storage is forbidden here: nothing is remembered, and nothing else changes.
  }
  return {
    WebSocket, EventSource, storage, random: Math.random, now: () => Date.now(),
    fetch: (...request) => globalThis.fetch(...request),
    setTimeout: (fn, ms) => globalThis.setTimeout(fn, ms), clearTimeout: (handle) => globalThis.clearTimeout(handle),
    // randomUUID exists only on secure origins; a server in the local network over http is none.
    uuid: () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))]
      .map((byte) => byte.toString(16).padStart(2, "0")).join(""),
  };
}

// ---------------------------------------------------------------------------------------------------- REST

/**
 * One REST request; the answer's JSON. Refusals are thrown as `ParleyError`, a lost connection as fetch throws it.
 * @param {string} path like `/sessions`
 * @param {{url?: string, token?: string, method?: string, body?: unknown, timeoutMs?: number}} [options]
 * @param {Environment} [env]
 * @returns {Promise<any>}
 */
export async function request(path, options = {}, env = browserEnvironment()) {
  const { token, body, timeoutMs = TIMINGS.acknowledge } = options;
  const { method = body === undefined ? "GET" : "POST" } = options;
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  /** @type {Record<string, string>} */
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  const abort = new AbortController();
  const timer = env.setTimeout(() => abort.abort(), timeoutMs);
  try {
    const response = await env.fetch(baseOf(options.url) + path, {
      method, signal: abort.signal, cache: "no-store",
      headers: { Accept: "application/json", ...type, ...bearer(token) }, ...sent,
    });
    const text = await response.text();
    const answer = jsonOrNull(text);
    if (response.ok) return answer;
    const wait = typeof answer?.retry_after === "number" ? answer.retry_after * 1000 : retryAfter(response);
    const message = answer?.detail ?? answer?.title ?? `the server answered ${response.status}`;
    const more = { path: answer?.path, status: response.status, retryAfterMs: wait };
    throw new ParleyError(answer?.code ?? `http_${response.status}`, message, more);
  } finally {
    env.clearTimeout(timer);
  }
}

/** @param {string} text */
function jsonOrNull(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {string|undefined} url */
function baseOf(url) {
  return (url ?? globalThis.location?.origin ?? "").replace(/\/+$/, "");
}

/**
 * Creates a session; its `session_id` is what `connect` wants.
 * @param {{url?: string, token?: string, agent_type?: string, title?: string, session_id?: string}} [options]
 * @param {Environment} [env]
 * @returns {Promise<{session_id: string, [field: string]: any}>}
 */
export async function createSession({ url, token, ...body } = {}, env = browserEnvironment()) {
  const made = await request("/sessions", { url, token, body }, env);
  return { ...made, session_id: made.session_id ?? made.id };
}

// ------------------------------------------------------------------------------------------------- session

/** One timer that is set anew or cleared. */
class Timer {
  /** @type {any} */
  #handle = null;
  #env;

  /** @param {Environment} env */
  constructor(env) {
    this.#env = env;
  }

  get running() {
    return this.#handle !== null;
  }

  /** @param {number} ms @param {() => void} fn */
  set(ms, fn) {
    this.clear();
    this.#handle = this.#env.setTimeout(() => {
      this.#handle = null;
      fn();
    }, ms);
  }

  clear() {
    if (this.#handle !== null) this.#env.clearTimeout(this.#handle);
    this.#handle = null;
  }
}

/**
 * One session, kept connected. Events: every event type of the server under its own name (the listener gets
 * the envelope), `*` for all of them, also unknown ones, and of its own: `state` (a `StateChange`), `resync`
 * (`{reason, cursor, snapshot?}`: what was seen so far no longer stands; take the snapshot or read the history).
 */
export class Session extends Emitter {
  /** @type {State} */
  state = "connecting";
  /** The transport in use, or being tried. @type {Transport} */
  transport;
  /** Why it closed for good. @type {ParleyError|null} */
  error = null;
  /** Limits the server named in `connected`. @type {{max_command_bytes?: number, max_nesting?: number}} */
  limits = {};

  #env;
  #options;
  #timings;
  #choice;
  #backoff;
  #uplink; // for POSTs that got no answer; a refusal has its command's own
  #sequencer;
  #outbox;
  /** @type {WebSocketLink|SseLink|null} */
  #link = null;
  /** @type {"opening"|"syncing"|"live"} */
  #phase = "opening";
  /** @type {any} */
  #advice = null;
  #sseByFetch = false;
  /** The cursor of another epoch, from `connected`; `resync_required` should follow. @type {string|null} */
  #moved = null;
  #heartbeat;
  #openedAt = 0;
  #heardAt = 0;
  #sentAt = 0;
  /** @type {{resolve: (session: Session) => void, reject: (error: Error) => void}} */
  #settle = { resolve: () => {}, reject: () => {} };
  /** @type {Timer} */
  #retry;
  /** @type {Timer} */
  #opening;
  /** @type {Timer} */
  #watch;
  /** @type {Timer} */
  #stable;
  /** @type {Timer} */
  #command;

  /** @param {ConnectOptions} options @param {Environment} env */
  constructor(options, env) {
    super();
    this.#env = env;
    this.#options = options;
    this.#timings = { ...TIMINGS, ...options.timings };
    const { backoffFloor: floor, backoffCeiling: ceiling, webSocketAgain } = this.#timings;
    const newBackoff = () => new Backoff({ random: env.random, floor, ceiling });
    const memory = memoryIn(env.storage);
    this.#choice = new TransportChoice({ mode: options.transport, webSocketAgain, now: env.now, memory });
    this.#backoff = newBackoff();
    this.#uplink = newBackoff();
    this.#outbox = new Outbox(newBackoff);
    this.#sequencer = new Sequencer(options.after);
    this.#heartbeat = this.#timings.heartbeat;
    this.#retry = new Timer(env);
    this.#opening = new Timer(env);
    this.#watch = new Timer(env);
    this.#stable = new Timer(env);
    this.#command = new Timer(env);
    this.sessionId = options.session;
    this.clientId = options.clientId ?? env.uuid();
    this.transport = this.#choice.pick();
    /** Settles at the first `sync`, or rejects when the server refuses for good. */
    this.ready = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    this.ready.catch(() => {}); // whoever awaits it still hears; nobody has to
    this.#open();
  }

  /** Where this client stands in the log; give it to `connect` as `after` to go on from here. */
  get cursor() {
    return this.#sequencer.cursor;
  }

  /** Commands that wait for their acknowledgement. */
  get pending() {
    return this.#outbox.size;
  }

  /**
   * Sends a command, whatever happens to the connection meanwhile; it takes effect once.
   * @param {Command} command gets an `id` when it has none
   * @returns {Promise<Ack>} rejects with a `ParleyError` naming code and path
   */
  send(command) {
    if (this.error !== null) return Promise.reject(this.error);
    const whole = { ...command, id: command.id ?? this.#env.uuid() };
    const size = new TextEncoder().encode(JSON.stringify(whole)).length;
    const limit = this.limits.max_command_bytes ?? Infinity;
    if (size > limit) {
      const message = `the command has ${size} bytes, ${limit} are allowed`;
      return Promise.reject(new ParleyError("too_large", message, { id: whole.id }));
    }
    const promise = this.#outbox.add(whole);
    this.#flush();
    return promise;
  }

  /**
   * @param {string|object[]} content
   * @param {{agentType?: string, onBusy?: "enqueue"|"reject"|"interrupt"|"steer", id?: string}} [options]
   */
  message(content, { agentType, onBusy, id } = {}) {
    const more = { ...(agentType && { agent_type: agentType }), ...(onBusy && { on_busy: onBusy }), ...(id && { id }) };
    return this.send({ type: "user_message", content, ...more });
  }

  /** Stops the running turn, or the one named. @param {string} [turnId] */
  cancel(turnId) {
    return this.send({ type: "cancel", ...(turnId && { turn_id: turnId }) });
  }

  /** @param {string} agentType @param {string} [reason] */
  switchAgent(agentType, reason) {
    return this.send({ type: "switch_agent", agent_type: agentType, ...(reason && { reason }) });
  }

  /** The session's messages over REST, oldest first, all pages of them. @returns {Promise<any[]>} */
  async history() {
    const messages = [];
    for (let after = "0"; after;) {
      const path = `${this.#path("history")}?${new URLSearchParams({ after, limit: "1000" })}`;
      const page = await request(path, { url: this.#options.url, token: this.#token() }, this.#env);
      messages.push(...page.messages);
      after = page.next === after ? null : page.next;
    }
    return messages;
  }

  /** Tries again now instead of waiting (the network is back, the user is impatient). */
  wake() {
    if (this.#retry.running && this.#env.now() - this.#openedAt >= this.#timings.backoffFloor) this.#open();
  }

  /** Leaves for good; commands still waiting are rejected with `closed`. */
  close() {
    if (this.state !== "closed") this.#finish(new ParleyError("closed", "closed by the page"));
  }

  // ---- connection

  #open() {
    for (const timer of [this.#retry, this.#opening]) timer.clear();
    this.#openedAt = this.#heardAt = this.#sentAt = this.#env.now();
    this.#phase = "opening";
    this.#advice = null;
    this.#moved = null;
    this.transport = this.#choice.pick();
    /** @type {WebSocketLink|SseLink|null} */
    let link = null;
    const current = () => link !== null && this.#link === link;
    const receiver = {
      frame: (/** @type {Envelope} */ envelope) => { if (current()) this.#frame(envelope); },
      end: (/** @type {Ending} */ ending) => { if (current()) this.#lost(ending); },
    };
    try {
      link = this.transport === "websocket"
        ? new WebSocketLink(this.#env, this.#url("ws", { batch: "1" }), this.#token(), receiver)
        : new SseLink(this.#env, this.#url("events"), this.#token(), receiver, this.#sseByFetch);
    } catch (error) {
      return this.#lost({ why: "unsupported", error });
    }
    this.#link = link;
    const patience = this.transport === "websocket" ? this.#timings.connectedWebSocket : this.#timings.connectedSse;
    return this.#opening.set(patience, () => this.#lost({ why: "silent" }));
  }

  /** @param {Ending} ending */
  #lost(ending) {
    if (this.state === "closed") return;
    const verdict = judge(ending, this.#advice);
    this.#drop();
    if (!verdict.reconnect) {
      this.#finish(new ParleyError(verdict.code, verdict.message, { status: ending.status }));
      return;
    }
    const gap = ending.why === "gap";
    if (gap && this.transport === "sse") this.#sseByFetch = true; // an event whose name we do not know?
    // Codes below 4000 also come from what stands between us and the server, and count against the transport.
    const explained = gap || (ending.status ?? 0) > 0 || (ending.code ?? 0) >= 4000 || this.#advice !== null;
    let atOnce = false;
    if (explained || (this.#phase === "live" && !this.#stable.running)) this.#choice.ended();
    else atOnce = this.#choice.failed(this.transport, this.#phase);
    this.#stable.clear();
    const wait = atOnce ? 0 : this.#backoff.next(verdict.retryAfterMs);
    this.#retry.set(wait, () => this.#open());
    this.#become(this.state === "connecting" ? "connecting" : "reconnecting", verdict.message, wait);
  }

  /** Lets go of the connection; what was under way is sent again over the next one. */
  #drop() {
    const link = this.#link;
    this.#link = null;
    link?.close();
    for (const timer of [this.#opening, this.#watch, this.#command]) timer.clear();
    this.#outbox.rewind();
  }

  /** @param {ParleyError} error */
  #finish(error) {
    this.#drop();
    for (const timer of [this.#retry, this.#stable]) timer.clear();
    this.error = error;
    this.#outbox.abandon(error);
    this.#settle.reject(error);
    this.#become("closed", error.message, null);
  }

  /** @param {State} state @param {string|null} reason @param {number|null} retryInMs */
  #become(state, reason, retryInMs) {
    this.state = state;
    this.emit("state", { state, transport: this.transport, reason, retryInMs, error: this.error });
  }

  // ---- frames

  /** @param {Envelope} event */
  #frame(event) {
    this.#heardAt = this.#env.now();
    const payload = event.payload ?? {};
    if (this.#moved !== null && (typeof event.seq === "number" || event.event_type === "sync")) {
      this.#resync({ reason: "epoch_changed", cursor: this.#moved }); // the server did not say so itself
    }
    if (typeof event.seq === "number") {
      const verdict = this.#sequencer.accept(event);
      if (verdict === "gap") this.#lost({ why: "gap" });
      if (verdict !== "deliver") return;
    }
    if (event.event_type === "connected") this.#connected(payload);
    else if (event.event_type === "sync" && !this.#sequencer.complete(payload.through)) {
      this.#lost({ why: "gap" });
      return;
    } else if (event.event_type === "resync_required") this.#resync(payload);
    else if (event.event_type === "disconnect") this.#advice = payload;
    else if (event.event_type === "ack") this.#acknowledged(payload);
    else if (event.event_type === "command_error") {
      const more = { ...payload, retryAfterMs: payload.retry_after_ms };
      this.#refused(payload.id, new ParleyError(payload.code, payload.message, more));
    }
    this.emit(event.event_type, event);
    this.emit("*", event);
    if (event.event_type === "sync") this.#synced();
    this.#beat(); // timers of a hidden page are slowed down, arriving frames are not
  }

  /** @param {any} payload */
  #connected(payload) {
    this.#opening.clear();
    this.#phase = "syncing";
    this.clientId = payload.client_id ?? this.clientId;
    this.sessionId = payload.session?.session_id ?? this.sessionId;
    this.limits = payload.limits ?? {};
    this.#heartbeat = payload.heartbeat_interval_ms ?? this.#timings.heartbeat;
    this.#moved = this.#sequencer.connected(payload.cursor) ? payload.cursor : null;
    this.#tick();
  }

  /** @param {any} payload */
  #resync(payload) {
    this.#moved = null;
    this.#sequencer.resync(payload.cursor);
    this.emit("resync", { reason: payload.reason, cursor: payload.cursor, snapshot: payload.snapshot ?? null });
  }

  #synced() {
    this.#phase = "live";
    this.#choice.worked(this.transport);
    this.#stable.set(this.#timings.stable, () => {
      this.#backoff.reset();
      this.#choice.stable();
    });
    this.#settle.resolve(this);
    this.#become("open", null, null);
    this.#flush();
  }

  // ---- life signs

  #tick() {
    this.#watch.set(this.#heartbeat / 2, () => {
      if (this.#env.now() - this.#heardAt >= 2 * this.#heartbeat) return this.#lost({ why: "silence" });
      this.#beat();
      return this.#tick();
    });
  }

  #beat() {
    if (!(this.#link instanceof WebSocketLink) || this.#phase === "opening") return;
    if (this.#env.now() - this.#sentAt >= this.#heartbeat) this.#write({ type: "ping" });
  }

  /** @param {object} command */
  #write(command) {
    this.#sentAt = this.#env.now();
    /** @type {WebSocketLink} */ (this.#link).send(JSON.stringify(command));
  }

  // ---- commands

  #flush() {
    if (this.#phase !== "live" || this.#link === null) return;
    const command = this.#outbox.take();
    if (command === null) return;
    if (this.#link instanceof WebSocketLink) {
      this.#write(command);
      this.#command.set(this.#timings.acknowledge, () => this.#lost({ why: "unacknowledged" }));
    } else {
      this.#post(command, this.#link);
    }
  }

  /** @param {Command & {id: string}} command @param {SseLink} link */
  async #post(command, link) {
    try {
      const path = `${this.#path("commands")}?${new URLSearchParams({ client_id: this.clientId })}`;
      const { url } = this.#options;
      const options = { url, token: this.#token(), body: command, timeoutMs: this.#timings.acknowledge };
      const answer = await request(path, options, this.#env);
      const ack = Array.isArray(answer) ? answer[0] : answer;
      if (ack?.id !== command.id) throw new ParleyError("unacknowledged", "no acknowledgement came", { status: 502 });
      this.#acknowledged(ack);
    } catch (error) {
      if (this.#link !== link) return; // it is on its way again over another connection
      const lost = !(error instanceof ParleyError);
      if (lost) this.#later(this.#uplink.next());
      else this.#refused(command.id, error);
    }
  }

  /** @param {Ack} ack */
  #acknowledged(ack) {
    if (!this.#outbox.acknowledge(ack)) return;
    this.#uplink.reset();
    if (!this.#outbox.underWay) this.#command.clear();
    this.#flush();
  }

  /** @param {string|undefined} id @param {ParleyError} error */
  #refused(id, error) {
    const wait = this.#outbox.refuse(id, error);
    if (wait !== null) return this.#later(wait);
    if (!this.#outbox.underWay) this.#command.clear();
    return this.#flush();
  }

  /** @param {number} ms */
  #later(ms) {
    this.#command.set(ms, () => {
      this.#outbox.rewind();
      this.#flush();
    });
  }

  // ---- addresses

  #token() {
    const { token } = this.#options;
    return (typeof token === "function" ? token() : token) || undefined;
  }

  /** @param {string} leaf */
  #path(leaf) {
    return `/sessions/${encodeURIComponent(this.sessionId)}/${leaf}`;
  }

  /** @param {string} leaf @param {Record<string, string>} [query] */
  #url(leaf, query = {}) {
    const after = this.#sequencer.cursor;
    const all = new URLSearchParams({ client_id: this.clientId, ...(after === null ? {} : { after }), ...query });
    return `${baseOf(this.#options.url)}${this.#path(leaf)}?${all}`;
  }
}

/** @param {Environment["storage"]} storage */
function memoryIn(storage) {
  const key = "parley.transport";
  return {
    load() {
      try {
        return jsonOrNull(storage?.getItem(key) ?? "");
      } catch {
        return null; // storage that may not be read is storage that remembers nothing
      }
    },
    /** @param {unknown} value */
    save(value) {
      try {
        storage?.setItem(key, JSON.stringify(value));
      } catch {
        // Full or forbidden: the next page finds out by itself which transport works.
      }
    },
  };
}

/**
 * Opens a session and keeps it open. Returns at once; await `session.ready` to know that it has caught up.
 * @param {ConnectOptions} options
 * @param {Environment} [env]
 * @returns {Session}
 */
export function connect(options, env = browserEnvironment()) {
  return new Session(options, env);
}

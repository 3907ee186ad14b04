/** One session, kept connected: joins the parts. */

import { ParleyError, TIMINGS, Timer } from "./basics.js";
import { Commands } from "./commands.js";
import { SseLink, WebSocketLink } from "./links.js";
import { CallMemory, lastingClient } from "./memory.js";
import { Outbox } from "./outbox.js";
import { Backoff, TransportChoice, judge, memoryIn } from "./patience.js";
import { Sequencer } from "./position.js";
import { baseOf, request, requestTicket } from "./rest.js";
import { StreamSlots } from "./slots.js";
import { ToolBench } from "./tools.js";

/** @typedef {import("./basics.js").Ack} Ack */
/** @typedef {import("./basics.js").Command} Command */
/** @typedef {import("./basics.js").ConnectOptions} ConnectOptions */
/** @typedef {import("./basics.js").Ending} Ending */
/** @typedef {import("./basics.js").Envelope} Envelope */
/** @typedef {import("./basics.js").Environment} Environment */
/** @typedef {import("./basics.js").State} State */
/** @typedef {import("./tools.js").Handler} Handler */
/** @typedef {import("./tools.js").Tool} Tool */
/** @typedef {import("./basics.js").Transport} Transport */

/** Tokens that may be the name of a subprotocol (RFC 6455, section 4.1; RFC 9110, section 5.6.2). */
const SUBPROTOCOL = /^[\w.~+-]+$/;

/**
 * One session, kept connected. Events: every event type of the server under its own name (the listener gets
 * the envelope), `*` for all of them, also unknown ones, and of its own: `state` (a `StateChange`), `resync`
 * (`{reason, cursor, snapshot?}`: what was seen so far no longer stands; take the snapshot or read the history),
 * `tools_refused` (an error: the server did not take the tools, or a result, of this client).
 */
export class Session extends Commands {
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
  #bench;
  #slots;
  /** Nobody looks at this tab, and others need its connection. */
  #resting = false;
  #forgetClient = () => {};
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
    this.clientId = options.clientId || env.uuid();
    this.#bench = this.#newBench();
    this.#slots = new StreamSlots(env, baseOf(options.url), () => this.#rest());
    this.transport = this.#choice.pick();
    /** Settles at the first `sync`, or rejects when the server refuses for good. */
    this.ready = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    this.ready.catch(() => {}); // whoever awaits it still hears; nobody has to
    if (options.remember === "tab" && !options.clientId) this.#remember();
    else this.#open();
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
    return this.#enqueue(whole);
  }

  /** @param {Command & {id: string}} command @param {{first?: boolean}} [options] */
  #enqueue(command, options) {
    const promise = this.#outbox.add(command, options);
    this.#getUp();
    this.#flush();
    return promise;
  }

  /** Lets the connection go on with what `token` gives now, before the present token ends. */
  refreshToken() {
    return this.send({ type: "refresh_token", token: this.#token() });
  }

  // ---- tools

  /**
   * Offers tools to the agents, beside those offered before, for as long as this session is open: after a reconnect they
   * are offered again. A call is run once; what came of it is delivered, whatever happens to the connection.
   * @param {Tool[]} tools
   * @param {Handler} [handler] for those that have no `run` of their own
   * @returns {Promise<Ack|null>} settles when the server knows; null when there is no connection yet
   */
  registerTools(tools, handler) {
    if (this.error !== null) return Promise.reject(this.error);
    try {
      return this.#bench.offer(tools, handler, this.#phase === "live");
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Takes tools back; calls that run are finished. @param {string[]} names @returns {Promise<Ack|null>} */
  unregisterTools(names) {
    return this.#bench.withdraw(names, this.#phase === "live");
  }

  #newBench() {
    return new ToolBench(this.#env, {
      send: (command) => this.send(command),
      first: (command) => this.#enqueue(/** @type {any} */ (command), { first: true }),
      drop: (command) => this.#mention(command),
      clientId: () => this.clientId,
      refused: (error) => this.emit("tools_refused", error),
    });
  }

  /** This tab goes on as the client that it was before it was loaded again. */
  async #remember() {
    const { clientId, store, release } = await lastingClient(this.#env, this.sessionId);
    if (this.state === "closed") {
      release();
      return;
    }
    this.#forgetClient = release;
    this.clientId = clientId;
    this.#bench.memory = new CallMemory(store, `parley.calls.${this.sessionId}.${clientId}`);
    this.#open();
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
    this.#getUp();
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
    this.#resting = false;
    if (this.transport === "sse" && this.#slots.needed) this.#openInSlot();
    else this.#openNow();
  }

  #openNow() {
    const patience = this.transport === "websocket" ? this.#timings.connectedWebSocket : this.#timings.connectedSse;
    this.#opening.set(patience, () => this.#lost({ why: "silent" }));
    if (this.#needsTicket()) this.#openByTicket();
    else this.#link = this.#dial({});
  }

  async #openInSlot() {
    const wait = () => this.#become(this.state, "other tabs hold all event streams that a browser opens to a host", null);
    if (await this.#slots.take(wait)) this.#openNow();
  }

  /** Leaves its stream to a tab that somebody looks at, until somebody looks at this one, or something is sent. */
  #rest() {
    if (this.#bench.offering || this.#outbox.size || this.#phase !== "live") return;
    this.#drop();
    this.#resting = true;
    this.#phase = "opening";
    this.#become("reconnecting", "nobody looks at this tab, and others need its connection", null);
    this.#env.shown?.(() => this.#getUp());
  }

  #getUp() {
    if (this.#resting && this.state !== "closed") this.#open();
  }

  /** Whether the token cannot be shown to this transport as it is. */
  #needsTicket() {
    const token = this.#token();
    if (this.#options.ticket) return true;
    return this.transport === "websocket" && token !== undefined && !SUBPROTOCOL.test(token);
  }

  /** A ticket is good once: each connection gets another one. */
  async #openByTicket() {
    const opened = this.#openedAt;
    const stale = () => this.state === "closed" || this.#link !== null || this.#openedAt !== opened || this.#retry.running;
    try {
      const { url, ticket } = this.#options;
      const ask = ticket ?? (() => requestTicket({ session: this.sessionId, url, token: this.#token() }, this.#env));
      const found = await ask(this.sessionId);
      if (!stale()) this.#link = this.#dial({ ticket: found });
    } catch (error) {
      const { status, message, retryAfterMs } = /** @type {any} */ (error);
      if (!stale()) this.#lost(status ? { status, reason: message, retryAfterMs } : { why: "connection_lost", error });
    }
  }

  /** @param {Record<string, string>} query @returns {WebSocketLink|SseLink|null} */
  #dial(query) {
    /** @type {WebSocketLink|SseLink|null} */
    let link = null;
    const current = () => link !== null && this.#link === link;
    const receiver = {
      frame: (/** @type {Envelope} */ envelope) => { if (current()) this.#frame(envelope); },
      end: (/** @type {Ending} */ ending) => { if (current()) this.#lost(ending); },
    };
    try {
      link = this.transport === "websocket"
        ? new WebSocketLink(this.#env, this.#url("ws", { batch: "1", ...query }), query.ticket ? undefined : this.#token(), receiver)
        : new SseLink(this.#env, this.#url("events", query), this.#token(), receiver, this.#sseByFetch);
    } catch (error) {
      this.#lost({ why: "unsupported", error });
    }
    return link;
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
    this.#slots.free();
    for (const timer of [this.#opening, this.#watch, this.#command]) timer.clear();
    this.#outbox.rewind();
  }

  /** @param {ParleyError} error */
  #finish(error) {
    this.#drop();
    for (const timer of [this.#retry, this.#stable]) timer.clear();
    this.error = error;
    this.#bench.close();
    this.#slots.close();
    this.#forgetClient();
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
    this.#bench.take(event, this.#phase === "live");
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
    this.#bench.connected();
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

  /** Says something that is true only now, once, if it can be said now. @param {Command} command */
  #mention(command) {
    const whole = { ...command, id: this.#env.uuid() };
    if (this.#phase !== "live" || this.#link === null) return;
    if (this.#link instanceof WebSocketLink) {
      this.#write(whole);
      return;
    }
    const path = `${this.#path("commands")}?${new URLSearchParams({ client_id: this.clientId })}`;
    request(path, { url: this.#options.url, token: this.#token(), body: whole }, this.#env).catch(() => {
      // It was lost, like one that was said a moment before a connection went.
    });
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

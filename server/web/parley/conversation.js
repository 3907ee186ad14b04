/** A conversation out of events. */

import { Emitter } from "./basics.js";
import { MessageText } from "./deltas.js";
import { parseCursor } from "./position.js";

/** @typedef {import("./basics.js").Envelope} Envelope */
/** @typedef {import("./session.js").Session} Session */

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

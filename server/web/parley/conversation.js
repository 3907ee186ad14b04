/** A conversation out of events. */

import { Emitter } from "./basics.js";
import { CallBook } from "./calls.js";
import { MessageText } from "./deltas.js";
import { parseCursor } from "./position.js";

/** @typedef {import("./basics.js").Envelope} Envelope */
/** @typedef {import("./calls.js").ToolCall} ToolCall */
/** @typedef {import("./session.js").Session} Session */

/**
 * @typedef {{call_id: string, name: string|null, arguments: string}} Call
 * @typedef {{
 *   message_id: string, role: string, content: string, reasoning: string, tool_calls: Call[], done: boolean,
 *   seq: number|null, finish_reason: string|null, timestamp: string, turn_id: string|null,
 *   agent_name: string|null, agent_type: string|null, call_id: string|null, name: string|null,
 *   parent_call_id: string|null
 * }} Message
 *
 * A turn: `status` is null while it is under way, `parent_call_id` the call of another turn that it answers.
 * @typedef {{turn_id: string, message_id: string|null, agent_type: string|null, agent_name: string|null,
 *   started_at: string|null, cancelling: boolean, status: string|null, usage: Usage|null, steps: number|null,
 *   duration_ms: number|null, error: any, parent_call_id: string|null}} Turn
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number, cost: number|null}} Usage
 *
 * Another agent acts from here on. `after` is the number of the last message before it.
 * @typedef {{seq: number|null, timestamp: string, from_agent: string, to_agent: string, reason: string|null,
 *   cause: "client"|"agent", turn_id: string|null, confidence: number|null}} Switch
 */

/**
 * What a page shows of a session, kept up to date from its events: messages in the order of the log with
 * those being written at the end, turns, the queue, tool calls, approvals, the acting agent, who is here.
 * Listeners of `change` are told after each event that changed something.
 */
export class Conversation extends Emitter {
  /** Between people and agents; what agents said to each other is in `threads`. @type {Message[]} */
  messages = [];
  /** What was said in the turn that answers a call, by the call's id. @type {Map<string, Message[]>} */
  threads = new Map();
  /** The turn at work that no other turn waits for. @type {Turn|null} */
  turn = null;
  /** All turns by their ids. @type {Map<string, Turn>} */
  turns = new Map();
  /** The last turn that failed: `{turn_id, code, message}`; forgotten when the next one starts. @type {any} */
  failure = null;
  /** Messages waiting for their turn: `{message_id, content, agent_type, on_busy, client_id}`. @type {any[]} */
  queue = [];
  /** Tool calls by id. */
  calls = new CallBook();
  /** @type {Switch[]} */
  switches = [];
  /** @type {string|null} */
  agent = null;
  /** @type {any} */
  session = null;
  /** Who is here: `{client_id, transport, tools, role}`. @type {any[]} */
  clients = [];
  /** @type {Map<string, MessageText>} */
  #texts = new Map();
  #stale = false;

  /** Calls that somebody has to decide about, the oldest first. @returns {ToolCall[]} */
  get approvals() {
    return this.calls.undecided;
  }

  /** What all turns so far took together; the cost is null when no price is known of any of them. @returns {Usage} */
  get usage() {
    /** @type {Usage} */
    const sum = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, cost: null };
    for (const { usage } of this.turns.values()) {
      if (!usage) continue;
      for (const key of /** @type {const} */ (["prompt_tokens", "completion_tokens", "total_tokens"])) sum[key] += usage[key] ?? 0;
      if (typeof usage.cost === "number") sum.cost = (sum.cost ?? 0) + usage.cost;
    }
    return sum;
  }

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

  /** @param {{session: any, messages: any[], queue?: any[], approvals?: any[]}} snapshot */
  #take({ session, messages, queue = [], approvals = [] }) {
    this.queue = queue.map(waiting);
    this.#about(session);
    this.restore(messages);
    const timestamp = session?.last_activity ?? "";
    for (const payload of approvals) {
      this.apply({ event_type: "approval_required", session_id: session?.session_id ?? "", timestamp, payload });
    }
  }

  /** @param {any} session as the server describes it; what follows in the log is newer */
  #about(session) {
    this.session = session;
    this.agent = session?.current_agent ?? this.agent;
    if (session?.active_turn && !this.turn) this.turn = this.#turn(session.active_turn, { agent_type: this.agent });
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
    this.threads.clear();
    this.turn = this.failure = null;
    this.turns.clear();
    this.queue = [];
    this.calls.clear();
    this.switches = [];
    this.#texts.clear();
    this.emit("change", null);
  }

  /** @param {any[]} messages from the history, oldest first; those known already stay as they are */
  restore(messages) {
    const known = new Set(this.messages.map((message) => message.message_id));
    const older = messages.filter((message) => !known.has(message.message_id));
    const seqOf = (/** @type {any} */ { seq, cursor }) => seq ?? (cursor ? parseCursor(cursor).seq : null);
    const closed = older.map((message) => messageOf(message, seqOf(message), message.timestamp));
    this.messages.unshift(...closed);
    for (const message of closed) this.#calledIn(message);
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
        return this.#started(payload, event.timestamp);
      case "task_cancelling":
        if (this.turn?.turn_id === payload.turn_id) this.turn = this.#turn(payload.turn_id, { cancelling: true });
        return true;
      case "task_completed":
        return this.#completed(payload);
      case "turn_error":
        this.failure = payload;
        return true;
      case "agent_switched":
        return this.#switched(payload, event);
      case "queue_changed":
        return this.#queued(payload);
      case "session_updated":
        this.session = { ...this.session, ...payload };
        return true;
      default:
        return this.calls.apply(event);
    }
  }

  // ---- turns

  /** @param {string} id @param {Partial<Turn>} news @returns {Turn} another object each time */
  #turn(id, news) {
    const turn = {
      message_id: null, agent_type: null, agent_name: null, started_at: null, cancelling: false, status: null, usage: null,
      steps: null, duration_ms: null, error: null, parent_call_id: null, ...this.turns.get(id), ...news, turn_id: id,
    };
    this.turns.set(id, turn);
    return turn;
  }

  /** @param {any} payload @param {string} at */
  #started({ turn_id: id, message_id = null, agent_type = null, agent_name = null, parent_call_id = null }, at) {
    const turn = this.#turn(id, { message_id, agent_type, agent_name, parent_call_id, started_at: at, status: null });
    if (parent_call_id) {
      this.calls.answeredBy(parent_call_id, id);
    } else {
      this.turn = turn;
      this.failure = null;
    }
    return true;
  }

  /** @param {any} payload */
  #completed({ turn_id: id, status, usage = null, steps = null, duration_ms = null, error = null, parent_call_id = null }) {
    const turn = this.#turn(id, { status, usage, steps, duration_ms, error, parent_call_id, cancelling: false });
    this.calls.ended(id);
    if (this.turn?.turn_id === id) this.turn = null;
    if (error && !turn.parent_call_id) this.failure = { turn_id: id, ...error };
    return true;
  }

  /** @param {any} payload @param {Envelope} event */
  #switched(payload, event) {
    const { from_agent, to_agent, reason = null, cause = "client", turn_id = null, confidence = null } = payload;
    this.agent = to_agent;
    this.switches.push({ seq: event.seq ?? null, timestamp: event.timestamp, from_agent, to_agent, reason, cause, turn_id, confidence });
    if (this.turn && this.turn.turn_id === turn_id) this.turn = this.#turn(turn_id, { agent_type: to_agent, agent_name: null });
    return true;
  }

  // ---- messages

  /** The messages that are said in this call's turn, or else between people and agents. @param {string|null|undefined} call */
  #said(call) {
    if (!call) return this.messages;
    const thread = this.threads.get(call) ?? [];
    this.threads.set(call, thread);
    return thread;
  }

  /**
   * Where a message belongs of which only deltas are known, which do not tell their turn: a turn that waits for others
   * writes nothing itself. Of several others nobody knows, until the message is complete.
   * @returns {string|null|undefined} a call, null for the conversation itself, undefined when nobody knows
   */
  #writer() {
    const under = [...this.turns.values()].filter((turn) => turn.status === null && turn.parent_call_id);
    if (!under.length) return null;
    const asking = new Set(under.map((turn) => this.calls.get(/** @type {string} */ (turn.parent_call_id))?.turn_id));
    const writing = under.filter((turn) => !asking.has(turn.turn_id));
    return writing.length === 1 ? writing[0].parent_call_id : undefined;
  }

  /** @param {string} id @returns {Message|undefined} */
  #find(id) {
    for (const list of [this.messages, ...this.threads.values()]) {
      const found = list.findLast((one) => one.message_id === id);
      if (found) return found;
    }
    return undefined;
  }

  /** @param {any} delta @param {string} timestamp */
  #delta(delta, timestamp) {
    let message = this.#find(delta.message_id);
    if (message?.done) return false;
    const text = this.#texts.get(delta.message_id) ?? new MessageText();
    this.#texts.set(delta.message_id, text);
    if (text.apply(delta) === "ignored") return false;
    if (!message) {
      const call = this.#writer();
      if (call === undefined) return false;
      const turn = call ? this.turns.get(this.calls.get(call)?.child_turn ?? "") : this.turn;
      const { agent_type, agent_name, turn_id } = turn ?? {};
      const head = { role: "assistant", agent_type, agent_name, turn_id, message_id: delta.message_id, parent_call_id: call };
      message = { ...messageOf(head, null, timestamp), done: false };
      this.#said(call).push(message);
    }
    message.content = text.content;
    message.reasoning = text.reasoning;
    message.tool_calls = text.calls.map((call) => ({ ...call, name: this.calls.get(call.call_id)?.name ?? null }));
    return true;
  }

  /** @param {any} payload @param {Envelope} event */
  #created(payload, event) {
    const { message_id: id } = payload;
    const former = this.#find(id);
    if (former?.done) return false;
    if (former) {
      const list = this.#said(former.parent_call_id);
      list.splice(list.indexOf(former), 1);
    }
    this.#texts.delete(id);
    this.queue = this.queue.filter((waiting) => waiting.message_id !== id);
    // The log's order: behind all that is stored, before all that is still being written.
    const list = this.#said(payload.parent_call_id);
    const open = list.findIndex((one) => !one.done);
    const message = messageOf(payload, event.seq ?? null, payload.timestamp ?? event.timestamp);
    list.splice(open < 0 ? list.length : open, 0, message);
    this.#calledIn(message);
    return true;
  }

  /** @param {Message} message */
  #calledIn(message) {
    if (message.role === "tool") this.calls.returned(message);
    else this.calls.wrote(message);
  }

  /** @param {any} payload */
  #queued(payload) {
    const { change, message_id: id, order } = payload;
    if (change === "added") {
      if (payload.on_busy === "interrupt") this.queue.unshift(waiting(payload));
      else this.queue.push(waiting(payload));
    } else if (change === "reordered" && order) {
      this.queue.sort((a, b) => order.indexOf(a.message_id) - order.indexOf(b.message_id));
    } else this.queue = this.queue.filter((waiting) => waiting.message_id !== id);
    return true;
  }
}

/** @param {any} payload of a message that waits for its turn */
function waiting({ message_id, content = "", agent_type = null, on_busy = null, client_id = null }) {
  return { message_id, content, agent_type, on_busy, client_id };
}

/** @param {any} payload @param {number|null} seq @param {string} timestamp @returns {Message} */
function messageOf(payload, seq, timestamp) {
  return {
    message_id: payload.message_id, role: payload.role, content: payload.content ?? "",
    reasoning: payload.reasoning ?? "", tool_calls: (payload.tool_calls ?? []).map(flatCall), done: true, seq,
    finish_reason: payload.finish_reason ?? null, timestamp, turn_id: payload.turn_id ?? null,
    agent_name: payload.agent_name ?? null, agent_type: payload.agent_type ?? null,
    call_id: payload.call_id ?? payload.tool_call_id ?? null, name: payload.name ?? null,
    parent_call_id: payload.parent_call_id ?? null,
  };
}

/** A call as events have it, also out of a history, which has it as models are told of it. @param {any} call @returns {Call} */
function flatCall(call) {
  return {
    call_id: call.call_id ?? call.id, name: call.name ?? call.function?.name ?? null,
    arguments: call.arguments ?? call.function?.arguments ?? "",
  };
}

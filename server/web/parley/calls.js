/** Tool calls, and what people decide about them, out of events. */

/** @typedef {import("./basics.js").Envelope} Envelope */

/**
 * What became of the question whether a call may run.
 * @typedef {{decision: "approve"|"edit"|"reject"|"respond", cause: "person"|"rule"|"expiry"|"cancel", at: string,
 *   user: string|null, client_id: string|null, feedback: string|null, rule: string|null}} Resolution
 *
 * The question. `parameters` is the tool's JSON Schema, `expires_at` null when it never expires; `resolved` is null
 * while somebody has to decide.
 * @typedef {{approval_id: string, allowed_decisions: string[], expires_at: string|null, parameters: any,
 *   rule: string|null, reason: string|null, agent_type: string|null, asked_at: string, warned: boolean,
 *   resolved: Resolution|null}} Approval
 *
 * How far a call is: `asked` its message is being written or its fate is not known, `approval` somebody has to decide,
 * `waiting` for a client that runs it, `ready` for the server to begin, and so on. The last five are ends.
 * @typedef {"asked"|"approval"|"waiting"|"ready"|"running"|"done"|"failed"|"rejected"|"expired"|"cancelled"} CallState
 *
 * One call. `arguments` are what the agent wrote, `executed` what a person made of them (null: the same). `client_id`
 * is who has it, null the server. `child_turn` is the turn of the agent that was asked by it. Never changed, only
 * replaced: the same object is the same state.
 * @typedef {{call_id: string, name: string|null, arguments: any, executed: any, executor: "server"|"client"|null,
 *   state: CallState, done: boolean, turn_id: string|null, message_id: string|null, client_id: string|null,
 *   deadline: string|null, progress: {message: string|null, fraction: number|null}|null, approval: Approval|null,
 *   result: any, error: any, started_at: string|null, duration_ms: number|null, child_turn: string|null}} ToolCall
 */

/** @type {Omit<ToolCall, "call_id">} */
const UNKNOWN = Object.freeze({
  name: null, arguments: undefined, executed: null, executor: null, state: "asked", done: false, turn_id: null,
  message_id: null, client_id: null, deadline: null, progress: null, approval: null, result: undefined, error: null,
  started_at: null, duration_ms: null, child_turn: null,
});

/** The calls of a session by their ids, in the order in which they were made. @extends {Map<string, ToolCall>} */
export class CallBook extends Map {
  /** Calls that are not over: few, in however long a session. @type {Set<string>} */
  #open = new Set();

  /** Calls that somebody has to decide about, the oldest first. @returns {ToolCall[]} */
  get undecided() {
    return this.#under("approval");
  }

  /**
   * Takes an event in, if it is about a call.
   * @param {Envelope} event
   * @returns {boolean} whether something changed
   */
  apply(event) {
    const { event_type: type, payload, timestamp } = event;
    switch (type) {
      case "tool_call":
        return this.#made(payload);
      case "approval_required":
        return this.#asked(payload, timestamp);
      case "approval_timeout_warning":
        return this.#warned(payload);
      case "approval_resolved":
        return this.#resolved(payload, timestamp);
      case "tool_dispatched":
        return this.#dispatched(payload, timestamp);
      case "tool_progress":
        return this.#progressed(payload);
      case "tool_result":
        return this.#ended(payload);
      default:
        return false;
    }
  }

  /** What a message says of its calls: all there is to know when it comes from a history. @param {any} message */
  wrote({ message_id, turn_id, tool_calls: calls }) {
    for (const { call_id: id, name, arguments: text } of calls) {
      if (!this.has(id)) this.#put(id, { name, arguments: valueOf(text), message_id, turn_id });
    }
  }

  /** A tool's message, which a history has instead of the result. @param {any} message */
  returned({ call_id: id, name, content }) {
    const known = this.get(id);
    if (id && !known?.done) this.#put(id, { name: known?.name ?? name, state: "done", done: true, result: content });
  }

  /** A turn answers a call of another one. @param {string} id @param {string} turn */
  answeredBy(id, turn) {
    this.#put(id, { child_turn: turn });
  }

  /** A turn is over: nothing of it runs any more. @param {string} turn */
  ended(turn) {
    for (const call of this.#under()) {
      if (call.turn_id === turn) this.#put(call.call_id, { state: "cancelled", done: true });
    }
  }

  clear() {
    super.clear();
    this.#open.clear();
  }

  /** Calls that are not over, or those of them in one state. @param {CallState} [state] @returns {ToolCall[]} */
  #under(state) {
    const open = [...this.#open].map((id) => /** @type {ToolCall} */ (this.get(id)));
    return state === undefined ? open : open.filter((call) => call.state === state);
  }

  /** @param {string} id @param {Partial<ToolCall>} news */
  #put(id, news) {
    const call = { ...(this.get(id) ?? { ...UNKNOWN, call_id: id }), ...news };
    this.set(id, call);
    if (call.done) this.#open.delete(id);
    else this.#open.add(id);
    return true;
  }

  /** @param {any} payload */
  #made({ call_id: id, name, arguments: value, executor, turn_id, message_id }) {
    const known = this.get(id);
    const state = known && known.state !== "asked" ? known.state : idle(executor);
    return this.#put(id, { name, arguments: value, executor, state, turn_id, message_id });
  }

  /** @param {any} payload @param {string} at */
  #asked({ call_id: id, name, arguments: value, turn_id, message_id, ...question }, at) {
    const known = this.get(id);
    // Open approvals are told again after each replay.
    if (known?.done || known?.approval?.approval_id === question.approval_id) return false;
    const { approval_id, allowed_decisions, expires_at = null, parameters = null } = question;
    const { rule = null, reason = null, agent_type = null } = question;
    const approval = {
      approval_id, allowed_decisions, expires_at, parameters, rule, reason, agent_type, asked_at: at, warned: false, resolved: null,
    };
    return this.#put(id, { name, arguments: value, turn_id, message_id, approval, state: "approval" });
  }

  /** @param {any} payload */
  #warned({ call_id: id, expires_at }) {
    const call = this.get(id);
    if (call?.state !== "approval" || !call.approval) return false;
    return this.#put(id, { approval: { ...call.approval, expires_at, warned: true } });
  }

  /** @param {any} payload @param {string} at */
  #resolved(payload, at) {
    const { call_id: id, approval_id, turn_id, decision, cause, arguments: value } = payload;
    const call = this.get(id);
    const { user = null, client_id = null, feedback = null, rule = null } = payload;
    const question = call?.approval ?? {
      approval_id, allowed_decisions: [], expires_at: null, parameters: null, rule, reason: null, agent_type: null,
      asked_at: at, warned: false,
    };
    const approval = { ...question, resolved: { decision, cause, at, user, client_id, feedback, rule } };
    const executed = decision === "edit" ? value ?? null : null;
    const state = call?.done ? call.state : decided(decision, cause) ?? idle(call?.executor);
    return this.#put(id, { turn_id, approval, executed, state });
  }

  /** @param {any} payload @param {string} at */
  #dispatched(payload, at) {
    const { call_id: id, name, turn_id, client_id = null, deadline = null } = payload;
    const call = this.get(id);
    if (call?.done) return false;
    const again = call?.state === "running" && call.client_id === client_id;
    const known = call?.arguments === undefined ? { arguments: payload.arguments } : {};
    const started_at = again ? call.started_at : at;
    return this.#put(id, { ...known, name, turn_id, client_id, deadline, started_at, state: "running" });
  }

  /** @param {any} payload */
  #progressed({ call_id: id, message = null, fraction = null, deadline }) {
    const call = this.get(id);
    if (!call || call.done) return false;
    // Who says only the one thing does not take the other back.
    const progress = { message: message ?? call.progress?.message ?? null, fraction: fraction ?? call.progress?.fraction ?? null };
    return this.#put(id, { progress, deadline: deadline ?? call.deadline });
  }

  /** @param {any} payload */
  #ended(payload) {
    const { call_id: id, result = null, error = null, duration_ms = null, client_id } = payload;
    const call = this.get(id);
    const { turn_id = call?.turn_id, name = call?.name, executor = call?.executor } = payload;
    const state = ending(call?.approval?.resolved ?? null, error);
    return this.#put(id, {
      turn_id, name, executor, result, error, duration_ms, client_id: client_id ?? call?.client_id ?? null, state, done: true,
      progress: null,
    });
  }
}

/** A call that may run and does not yet. @param {string|null|undefined} executor @returns {CallState} */
const idle = (executor) => (executor === "client" ? "waiting" : "ready");

/** @param {string} decision @param {string} cause @returns {CallState|null} null: it will run */
function decided(decision, cause) {
  if (cause === "cancel") return "cancelled";
  if (cause === "expiry") return "expired";
  return decision === "reject" ? "rejected" : null;
}

/** @param {Resolution|null} resolution @param {any} error @returns {CallState} */
function ending(resolution, error) {
  const refused = resolution && decided(resolution.decision, resolution.cause);
  return refused ?? (error === null ? "done" : "failed");
}

/** @param {any} text arguments as the model wrote them: JSON, or else shown as they are */
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The tools that this client runs for the agents: offered again after each reconnect, run once, answered for certain. */

import { ParleyError } from "./basics.js";
import { CallMemory } from "./memory.js";

/** @typedef {import("./basics.js").Ack} Ack */
/** @typedef {import("./basics.js").Command} Command */
/** @typedef {import("./basics.js").Environment} Environment */
/** @typedef {import("./basics.js").Envelope} Envelope */

/**
 * A tool, as the server is told of it; `parameters` is a JSON Schema of its arguments. `read_only`: changes nothing;
 * `idempotent`: a second run changes nothing more; `independent`: may run beside any other call. `run` stays here.
 * @typedef {{name: string, description?: string, parameters: object, read_only?: boolean, idempotent?: boolean,
 *   independent?: boolean, run?: Handler}} Tool
 *
 * One call, as a handler sees it. `signal` is aborted when its result is not wanted any more. `progress` tells everybody
 * how far it is, which also renews the deadline (milliseconds since 1970; null: none).
 * @typedef {{call_id: string, turn_id: string, name: string, arguments: any, deadline: number|null, signal: AbortSignal,
 *   progress: (progress: {message?: string, fraction?: number}) => void}} RunningCall
 *
 * Returns the result, any JSON value; what it throws is told to the model, by its message.
 * @typedef {(call: RunningCall) => unknown} Handler
 */

/** Milliseconds between two words about the progress of one call; the last one is always said. */
const PROGRESS_PAUSE = 250;
/** Milliseconds for a page to offer a tool again that it was given a call of. */
const OFFER_PAUSE = 10_000;
/** Characters of an error that a command may carry. */
const LONGEST_ERROR = 60_000;

export class ToolBench {
  /** @type {Map<string, {spec: Omit<Tool, "run">, run: Handler}>} */
  #tools = new Map();
  /** Calls that run now. @type {Map<string, {call: RunningCall, abort: AbortController}>} */
  #running = new Map();
  /** Calls whose tool is not offered, or not yet again. @type {Map<string, {payload: any, timer: any}>} */
  #orphans = new Map();
  /** What is to be said of a call's progress. @type {Map<string, {progress: any, timer: any}>} */
  #progress = new Map();
  #offers = 0;
  /** Nothing was offered ever: then nothing has to be taken back either. */
  #silent = true;
  #env;
  #out;
  memory = new CallMemory();

  /**
   * @param {Environment} env
   * @param {{send: (command: Command) => Promise<Ack>, drop: (command: Command) => void, first: (command: Command) => Promise<Ack>,
   *   clientId: () => string, refused: (error: unknown) => void}} out `first` goes before what waits, `drop` is lost when it
   *   cannot be said now
   */
  constructor(env, out) {
    this.#env = env;
    this.#out = out;
  }

  /** Whether agents may count on this client. */
  get offering() {
    return this.#tools.size > 0 || this.#running.size > 0;
  }

  /**
   * @param {Tool[]} tools @param {Handler|undefined} handler for those without a `run` of their own
   * @param {boolean} live whether there is anybody to be told now
   * @returns {Promise<Ack|null>} null: it will be said when there is a connection
   */
  offer(tools, handler, live) {
    for (const { run = handler, ...spec } of tools) {
      if (!run) throw new ParleyError("invalid", `the tool ${spec.name} has neither a handler nor a \`run\``);
      this.#tools.set(spec.name, { spec, run });
    }
    this.#silent = false;
    for (const [id, { payload, timer }] of [...this.#orphans]) {
      if (!this.#tools.has(payload.name)) continue;
      this.#env.clearTimeout(timer);
      this.#orphans.delete(id);
      this.#begin(payload);
    }
    return live ? this.#announce() : Promise.resolve(null);
  }

  /** @param {string[]} names @param {boolean} live @returns {Promise<Ack|null>} */
  withdraw(names, live) {
    for (const name of names) this.#tools.delete(name);
    return live && !this.#silent ? this.#announce() : Promise.resolve(null);
  }

  /** There is a connection again: the server is told what is offered here, and what came of the calls of an earlier page. */
  connected() {
    if (!this.#silent) this.#announce().catch(this.#out.refused);
    for (const answer of this.memory.answers) this.#answer(/** @type {any} */ (answer));
  }

  /** @returns {Promise<Ack>} */
  #announce() {
    this.#offers += 1;
    const tools = [...this.#tools.values()].map(({ spec }) => spec);
    return this.#out.first({ type: "register_tools", id: `tools-${this.#offers}-${this.#env.uuid()}`, tools });
  }

  /**
   * @param {Envelope} event any
   * @param {boolean} live whether it is about now: what a replay tells of is over, or is told again after it
   */
  take({ event_type: type, payload }, live) {
    if (type === "tool_dispatched") {
      if (live && payload.client_id === this.#out.clientId()) this.#given(payload);
    } else if (type === "tool_result") {
      this.#over(payload.call_id, "the call has its result");
    } else if (type === "task_completed") {
      for (const { call } of [...this.#running.values()]) {
        if (call.turn_id === payload.turn_id) this.#over(call.call_id, "the turn is over");
      }
    } else if (type === "tool_progress" && payload.deadline) {
      const running = this.#running.get(payload.call_id);
      if (running) running.call.deadline = Date.parse(payload.deadline);
    }
  }

  /** @param {any} payload */
  #given(payload) {
    const { call_id: id, name, deadline } = payload;
    const running = this.#running.get(id);
    if (running) {
      running.call.deadline = deadline ? Date.parse(deadline) : null;
      return;
    }
    const known = this.memory.get(id);
    const tool = this.#tools.get(name);
    if (known === true || this.#orphans.has(id)) return;
    if (known) {
      this.#answer(/** @type {any} */ (known));
    } else if (!tool) {
      const timer = this.#env.setTimeout(() => this.#forsake(payload), OFFER_PAUSE);
      this.#orphans.set(id, { payload, timer });
    } else {
      this.#begin(payload);
    }
  }

  /** @param {any} payload */
  #forsake({ call_id: id, name }) {
    this.#orphans.delete(id);
    this.#finish(id, { error: `This client does not offer ${name} any more.` });
  }

  /** @param {any} payload */
  #begin(payload) {
    const { call_id: id, name } = payload;
    const { spec, run } = /** @type {{spec: any, run: Handler}} */ (this.#tools.get(name));
    if (this.memory.get(id) === null && !spec.idempotent && !spec.read_only) {
      // An earlier page began it and has not said what came of it.
      this.#finish(id, { error: `The page was reloaded while ${name} ran; whether it took effect is not known.` });
      return;
    }
    this.memory.begin(id);
    this.#run(payload, run);
  }

  /** @param {any} payload @param {Handler} run */
  async #run({ call_id: id, turn_id, name, arguments: value, deadline }, run) {
    const abort = new AbortController();
    /** @type {RunningCall} */
    const call = {
      call_id: id, turn_id, name, arguments: value, deadline: deadline ? Date.parse(deadline) : null, signal: abort.signal,
      progress: (progress) => this.#say(id, progress),
    };
    this.#running.set(id, { call, abort });
    let outcome;
    try {
      outcome = { result: await run(call) };
    } catch (error) {
      outcome = { error: worded(error) };
    }
    if (this.#running.get(id)?.call === call) this.#finish(id, outcome);
  }

  /** @param {string} id @param {{result?: unknown, error?: string}} outcome */
  #finish(id, outcome) {
    this.#running.delete(id);
    this.#quiet(id);
    this.#answer({ type: "tool_result", id: `result-${this.#env.uuid()}`, call_id: id, ...sendable(outcome) });
  }

  /** @param {Command & {id: string}} command */
  async #answer(command) {
    const { call_id: id } = command;
    this.memory.answer(id, command);
    try {
      await this.#out.send(command);
      this.memory.settle(id);
    } catch (error) {
      this.#refused(command, error);
    }
  }

  /** @param {Command & {id: string}} command @param {any} error */
  #refused(command, error) {
    const { code, message } = error;
    if (code === "closed") return; // the next page of this tab delivers it
    if (["too_large", "invalid", "malformed"].includes(code) && command.error === undefined) {
      const told = `The result could not be delivered: ${message}`;
      this.#answer({ type: "tool_result", id: `${command.id}-e`, call_id: command.call_id, error: told });
      return;
    }
    this.memory.settle(command.call_id);
    if (code !== "already_resolved") this.#out.refused(error);
  }

  /** Nobody wants a result of this call. @param {string} id @param {string} why */
  #over(id, why) {
    const orphan = this.#orphans.get(id);
    if (orphan) this.#env.clearTimeout(orphan.timer);
    this.#orphans.delete(id);
    const running = this.#running.get(id);
    this.#running.delete(id);
    this.#quiet(id);
    if (running) this.memory.settle(id);
    running?.abort.abort(new DOMException(why, "AbortError"));
  }

  // ---- progress

  /** @param {string} id @param {{message?: string, fraction?: number}} progress */
  #say(id, progress) {
    if (!this.#running.has(id)) return;
    const saying = this.#progress.get(id);
    if (saying) {
      saying.progress = { ...saying.progress, ...progress };
      return;
    }
    this.#out.drop({ type: "tool_progress", call_id: id, ...progress });
    const timer = this.#env.setTimeout(() => {
      const { progress: later } = this.#progress.get(id) ?? {};
      this.#progress.delete(id);
      if (later) this.#say(id, later);
    }, PROGRESS_PAUSE);
    this.#progress.set(id, { progress: null, timer });
  }

  /** @param {string} id */
  #quiet(id) {
    this.#env.clearTimeout(this.#progress.get(id)?.timer);
    this.#progress.delete(id);
  }

  /** The page leaves for good. */
  close() {
    for (const id of [...this.#running.keys()]) {
      const running = this.#running.get(id);
      this.#running.delete(id);
      this.#quiet(id);
      running?.abort.abort(new DOMException("the session was closed", "AbortError"));
    }
    for (const { timer } of this.#orphans.values()) this.#env.clearTimeout(timer);
  }
}

/** @param {unknown} error */
function worded(error) {
  const text = error instanceof Error ? error.message || error.name : String(error);
  // What the server cannot keep is left out: a refusal of the error itself would leave the call without an end.
  const kept = [...text].filter((character) => character !== "\0" && !/^[\ud800-\udfff]$/.test(character)).join("");
  return (kept || "The tool failed.").slice(0, LONGEST_ERROR);
}

/** What JSON can say of an outcome. @param {{result?: unknown, error?: string}} outcome */
function sendable({ result, error }) {
  if (error !== undefined) return { error };
  try {
    const text = JSON.stringify(result ?? null);
    return { result: text === undefined ? null : JSON.parse(text) };
  } catch (reason) {
    return { error: `The tool's result is no JSON value: ${worded(reason)}` };
  }
}

/** What every part of the library stands on: its errors, its timings, listeners, timers, and the world outside. */

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
 *   uuid: () => string, storage: Pick<Storage, "getItem"|"setItem"|"removeItem">|null, locks?: LockManager,
 *   channel?: (name: string) => BroadcastChannel|null, hidden?: () => boolean, shown?: (fn: () => void) => void,
 *   multiplexed?: () => boolean
 * }} Environment
 *
 * @typedef {{
 *   session: string,
 *   url?: string,
 *   token?: string|(() => string|undefined),
 *   ticket?: (session: string) => string|Promise<string>,
 *   after?: string|number|null,
 *   transport?: "auto"|Transport,
 *   clientId?: string,
 *   remember?: "page"|"tab",
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

/** `on(type, listener)`; `*` hears everything. A listener that throws is reported and harms nobody else. */
export class Emitter {
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

/** One timer that is set anew or cleared. */
export class Timer {
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

/** @returns {Environment} */
export function browserEnvironment() {
  const { WebSocket, EventSource, crypto, navigator } = /** @type {any} */ (globalThis);
  let storage = null;
  try {
    storage = globalThis.sessionStorage ?? null;
  } catch {
    // Storage is forbidden here: nothing is remembered, and nothing else changes.
  }
  return {
    WebSocket, EventSource, storage, locks: navigator?.locks, random: Math.random, now: () => Date.now(),
    fetch: (...request) => globalThis.fetch(...request),
    setTimeout: (fn, ms) => globalThis.setTimeout(fn, ms), clearTimeout: (handle) => globalThis.clearTimeout(handle),
    // randomUUID exists only on secure origins; a server in the local network over http is none.
    uuid: () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))]
      .map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    channel: (name) => (typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(name)),
    hidden: () => globalThis.document?.hidden ?? false,
    shown: (fn) => globalThis.document?.addEventListener("visibilitychange", fn, { once: true }),
    // HTTP/2 and HTTP/3 carry any number of streams over one connection.
    multiplexed: () => /^h[23]/.test(/** @type {any} */ (performance.getEntriesByType?.("navigation")[0])?.nextHopProtocol ?? ""),
  };
}

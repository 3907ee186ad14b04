/** How long to wait, what the end of a connection means, and which transport to try next. */

import { TIMINGS } from "./basics.js";

/** @typedef {import("./basics.js").Ending} Ending */
/** @typedef {import("./basics.js").Transport} Transport */

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

/** What this tab remembers of transports. @param {import("./basics.js").Environment["storage"]} storage */
export function memoryIn(storage) {
  const key = "parley.transport";
  return {
    load() {
      try {
        return JSON.parse(storage?.getItem(key) ?? "null");
      } catch {
        return null; // storage that may not be read, or holds something else, remembers nothing
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

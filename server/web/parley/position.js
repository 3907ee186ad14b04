/** Where a client stands in the log. */

import { ParleyError } from "./basics.js";

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

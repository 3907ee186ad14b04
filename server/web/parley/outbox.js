/** Commands that wait. */

import { Backoff } from "./patience.js";

/** @typedef {import("./basics.js").Ack} Ack */
/** @typedef {import("./basics.js").Command} Command */
/** @typedef {import("./basics.js").ParleyError} ParleyError */

/** Refusals of one command that are worth repeating before the caller is told. */
const COMMAND_TRIES = 8;

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
   * @param {{first?: boolean}} [options] `first`: before all that is not under way
   * @returns {Promise<Ack>} the same one when the id waits already
   */
  add(command, { first = false } = {}) {
    const known = this.#entries.find((entry) => entry.command.id === command.id);
    if (known) return known.promise;
    /** @type {any} */
    const entry = { command, underWay: false, refusals: 0, backoff: this.#newBackoff() };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    if (first) this.#entries.splice(this.underWay ? 1 : 0, 0, entry);
    else this.#entries.push(entry);
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

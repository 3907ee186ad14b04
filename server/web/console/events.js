/**
 * The newest events of a session, as many as are worth remembering. A page stays open for days, and one event may
 * have a quarter of a megabyte, so both their number and their size are bounded.
 */

export const MOST_EVENTS = 2_000;
export const MOST_CHARACTERS = 4_000_000;

/** @typedef {"durable"|"delta"|"transient"|"control"} Kind */
/** @typedef {{number: number, kind: Kind, type: string, seq: number|null, event: any, text: string, count: number}} Entry */

const CONTROL = new Set(["connected", "sync", "ack", "command_error", "resync_required", "disconnect", "heartbeat"]);

/** @param {any} event @returns {Kind} */
export function kindOf(event) {
  if (event.seq !== undefined) return "durable";
  if (event.event_type === "message_delta") return "delta";
  return CONTROL.has(event.event_type) ? "control" : "transient";
}

export class EventBuffer {
  /** Oldest first. @type {Entry[]} */
  entries = [];
  /** How many were let go. */
  dropped = 0;
  #characters = 0;
  #numbers = 0;

  /**
   * Takes an event in. One without a number that follows another of its type takes its place: there are hundreds of
   * deltas to a message, and what they say is in the message.
   * @param {any} event
   * @returns {Entry} a new one, or the one before, counted up
   */
  add(event) {
    const text = JSON.stringify(event.payload ?? {});
    const last = this.entries.at(-1);
    if (last && event.seq === undefined && last.seq === null && last.type === event.event_type) {
      this.#characters += text.length - last.text.length;
      Object.assign(last, { event, text, count: last.count + 1 });
      return last;
    }
    this.#numbers += 1;
    const entry = {
      number: this.#numbers, kind: kindOf(event), type: event.event_type, seq: event.seq ?? null, event, text, count: 1,
    };
    this.entries.push(entry);
    this.#characters += text.length;
    while (this.entries.length > MOST_EVENTS || (this.#characters > MOST_CHARACTERS && this.entries.length > 1)) {
      this.#characters -= /** @type {Entry} */ (this.entries.shift()).text.length;
      this.dropped += 1;
    }
    return entry;
  }

  clear() {
    this.entries = [];
    this.dropped = this.#characters = 0;
  }
}

/**
 * Whether an entry is asked for.
 * @param {Entry} entry
 * @param {{text: string, kind: string}} filter `kind`: one of the kinds, or `all`
 */
export function passes(entry, { text, kind }) {
  if (kind !== "all" && entry.kind !== kind) return false;
  const wanted = text.trim().toLowerCase();
  return !wanted || entry.type.includes(wanted) || entry.text.toLowerCase().includes(wanted);
}

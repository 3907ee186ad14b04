/** A message's text out of deltas. */

/**
 * The text of one message while it is being written. JavaScript's string length counts UTF-16 code units,
 * which is what the wire's offsets count.
 */
export class MessageText {
  /** @type {number|null} */
  attempt = null;
  /** @type {Map<string, string>} */
  #parts = new Map();

  get content() {
    return this.#parts.get("content") ?? "";
  }

  get reasoning() {
    return this.#parts.get("reasoning") ?? "";
  }

  /** Arguments of the tool calls begun so far, in order. */
  get calls() {
    return [...this.#parts].filter(([key]) => key.startsWith("arguments:"))
      .map(([key, text]) => ({ call_id: key.slice("arguments:".length), arguments: text }));
  }

  /**
   * @param {{attempt: number, part: string, call_id?: string, offset: number, text: string}} delta
   * @returns {"appended"|"ignored"|"gap"|"restarted"} `gap`: some text was missed; the next merged delta or
   *   the durable message heals it
   */
  apply(delta) {
    if (this.attempt !== null && delta.attempt < this.attempt) return "ignored";
    const restarted = this.attempt !== null && delta.attempt > this.attempt;
    if (restarted) this.#parts.clear();
    this.attempt = delta.attempt;
    const key = delta.part === "arguments" ? `arguments:${delta.call_id ?? ""}` : delta.part;
    const known = this.#parts.get(key) ?? "";
    if (delta.offset > known.length) return restarted ? "restarted" : "gap";
    if (known.length >= delta.offset + delta.text.length) return restarted ? "restarted" : "ignored";
    this.#parts.set(key, known + delta.text.slice(known.length - delta.offset));
    return restarted ? "restarted" : "appended";
  }
}

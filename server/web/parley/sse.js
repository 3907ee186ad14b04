/** Server-sent events out of bytes. */

/** Server-sent events out of bytes that were split anywhere, in a line or in a character. */
export class SseParser {
  #decoder = new TextDecoder("utf-8");
  #rest = "";
  #afterCr = false;
  /** @type {string[]} */
  #data = [];
  #event = "";

  /**
   * @param {Uint8Array} bytes
   * @returns {{event: string, data: string}[]} the events completed by them
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    text = this.#rest + text;
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = /** @type {string} */ (lines.pop());
    const events = [];
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
      this.#data = [];
      this.#event = "";
      return event;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    return null;
  }
}

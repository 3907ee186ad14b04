/** What is said in the turn that answers a call: another agent's work, under the call that asked for it. */

import { make } from "./dom.js";
import { MessageNode } from "./message.js";
import { desk } from "./desk.js";

export class Thread {
  node = make("div", { class: "thread", "data-testid": "thread" });
  /** @type {Map<string, MessageNode>} */
  #drawn = new Map();
  settled = true;

  constructor() {
    this.node.hidden = true;
  }

  /** @param {any[]|undefined} messages */
  update(messages) {
    if (!messages?.length) return;
    if (this.node.hidden) {
      this.node.hidden = false;
      this.node.append(make("ol", { "aria-label": "Said while it was asked" }));
    }
    const list = /** @type {HTMLElement} */ (this.node.firstChild);
    this.settled = true;
    const called = new Set(messages.flatMap((message) => message.tool_calls.map((/** @type {any} */ call) => call.call_id)));
    const shown = messages.filter((message) => message.role !== "tool" || !called.has(message.call_id));
    const ids = new Set(shown.map((message) => message.message_id));
    for (const [id, entry] of this.#drawn) {
      if (ids.has(id)) continue;
      entry.node.remove();
      this.#drawn.delete(id);
    }
    let place = /** @type {Element|null} */ (list.firstElementChild);
    for (const message of shown) {
      const entry = this.#drawn.get(message.message_id) ?? new MessageNode(message);
      this.#drawn.set(message.message_id, entry);
      if (!entry.settled || entry.message !== message) {
        entry.update(message, desk.conversation, false);
      }
      this.settled = this.settled && entry.settled;
      if (place && entry.node === place) place = place.nextElementSibling;
      else list.insertBefore(entry.node, place);
    }
  }
}

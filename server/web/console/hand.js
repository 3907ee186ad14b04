/** A call that waits for a client with its tool: a person may give the result by hand. */

import { desk } from "./desk.js";
import { make } from "./dom.js";
import { complain } from "./notice.js";

export class HandResult {
  /** @param {import("../parley/calls.js").ToolCall} call */
  constructor(call) {
    const label = `The result of ${call.name}`;
    const field = make("textarea", { rows: "2", "aria-label": label, placeholder: "Text, or JSON", "data-testid": "hand-result" });
    const send = (/** @type {string} */ text, /** @type {string} */ name, /** @type {(text: string) => object} */ outcome) => {
      const button = make("button", { type: "button", class: "ghost small", "data-testid": name }, text);
      button.addEventListener("click", () => this.#send(call, outcome(field.value)));
      return button;
    };
    const choices = make("div", { class: "choices" },
      send("Give this result", "hand-send", (text) => ({ result: parsed(text) })),
      send("Say that it failed", "hand-fail", (text) => ({ error: text.trim() || "A person said that it failed." })));
    this.node = make("details", { class: "hand", "data-testid": "hand" },
      make("summary", {}, "No client runs this yet. Do it by hand…"), field, choices);
  }

  /** @param {import("../parley/calls.js").ToolCall} call @param {object} outcome */
  async #send(call, outcome) {
    const { session } = desk;
    if (!session) return;
    this.node.inert = true;
    try {
      await session.send({ type: "tool_result", call_id: call.call_id, ...outcome });
    } catch (error) {
      if (session === desk.session) complain("The result was not taken", error);
      this.node.inert = false;
    }
  }
}

/** @param {string} text JSON where it is an object, a list or the like; otherwise the text itself */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

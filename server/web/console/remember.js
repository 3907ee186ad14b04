/** What makes a rule of a decision: for how long, and for which arguments. */

import { make } from "./dom.js";

/** Longer arguments are seldom the same twice. */
const LONGEST = 120;
let forms = 0;

export class Remember {
  #tool;
  #scope;
  /** @type {Map<string, any>} */
  #patterns = new Map();

  /** @param {import("../parley/calls.js").ToolCall} call */
  constructor(call) {
    this.#tool = call.name ?? "";
    const id = `remember-${(forms += 1)}`;
    this.#scope = make("select", { id, "data-testid": "remember" },
      make("option", { value: "" }, "this once"),
      make("option", { value: "session" }, "always in this session"),
      make("option", { value: "user" }, "always in all my sessions"));
    const fields = make("div", { class: "patterns" });
    fields.hidden = true;
    for (const [name, value] of Object.entries(typeof call.arguments === "object" && call.arguments ? call.arguments : {})) {
      if (typeof value === "object") continue;
      const text = String(value);
      const input = make("input", { type: "text", id: `${id}-${this.#patterns.size}`, placeholder: "anything", autocomplete: "off", spellcheck: "false", "data-pattern": name });
      // What is allowed for good is what was looked at, unless a person says more.
      input.value = text.length > LONGEST || text.includes("\n") ? "" : text;
      this.#patterns.set(name, input);
      fields.append(make("label", { for: input.id }, name), input);
    }
    const hint = make("p", { class: "hint" }, "Only for calls whose arguments match: * stands for any text, ? for one character, nothing for anything.");
    this.#scope.addEventListener("change", () => { fields.hidden = this.#scope.value === ""; });
    if (this.#patterns.size) fields.append(hint);
    this.node = make("div", { class: "remember" }, make("label", { for: id }, "Decide "), this.#scope, fields);
  }

  /** @returns {{scope: "session"|"user", tool: string, arguments?: Record<string, string>}|undefined} */
  get value() {
    if (this.#scope.value === "") return undefined;
    const given = [...this.#patterns].map(([name, input]) => [name, input.value]).filter(([, pattern]) => pattern !== "");
    return { scope: this.#scope.value, tool: this.#tool, ...(given.length && { arguments: Object.fromEntries(given) }) };
  }
}

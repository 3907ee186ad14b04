/** The question whether a call may run: what a person can answer, and what becomes a rule of it. */

import { desk } from "./desk.js";
import { make } from "./dom.js";
import { ArgumentEditor } from "./editor.js";
import { observing } from "./here.js";
import { complain, notify } from "./notice.js";
import { Remember } from "./remember.js";
import { countdown } from "./ticking.js";

/** @typedef {import("../parley/calls.js").ToolCall} ToolCall */

/** @type {Record<string, string>} */
const LATER = { edit: "Edit…", reject: "Reject…", respond: "Answer…" };

export class ApprovalPanel {
  #call;
  #head = make("p", { class: "approval-head" });
  #body = make("div", { class: "approval-body" });
  #choices = make("div", { class: "choices" });
  #remember;
  /** What the question looked like. */
  #stamp = "";

  /** @param {ToolCall} call */
  constructor(call) {
    this.#call = call;
    this.#remember = new Remember(call);
    this.node = make("div", { class: "approval", role: "group", "aria-label": `Decide about ${call.name}`, "data-testid": "approval" },
      this.#head, this.#body, this.#choices);
    this.update(call);
    this.#ask();
  }

  /** @param {ToolCall} call */
  update(call) {
    this.#call = call;
    const { expires_at, reason, rule, warned } = /** @type {any} */ (call.approval);
    const stamp = JSON.stringify([expires_at, reason, rule, warned]);
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    const why = reason ?? (!rule || rule.startsWith("default.") ? "It asks before it runs." : `It asks by the rule ${rule}.`);
    this.#head.replaceChildren(make("span", { class: "approval-why", title: rule ?? "" }, why), countdown(expires_at));
  }

  get #allowed() {
    return this.#call.approval?.allowed_decisions ?? [];
  }

  // ---- the ways to answer

  #ask() {
    if (observing()) {
      this.#choices.replaceChildren(make("p", { class: "hint" }, "You are here to read: others decide."));
      return;
    }
    const buttons = this.#allowed.map((decision) => {
      if (decision === "approve") return this.#button("Approve", "primary", "approve", () => this.#decide("approve"));
      const open = { edit: () => this.#edit(), reject: () => this.#write("reject"), respond: () => this.#write("respond") };
      return this.#button(LATER[decision], decision === "reject" ? "danger" : "ghost", decision, /** @type {any} */ (open)[decision]);
    });
    this.#body.replaceChildren(this.#remember.node);
    this.#choices.replaceChildren(...buttons);
  }

  #edit() {
    const send = this.#button("Approve with changes", "primary", "send-edit", () => this.#decide("edit", { value: editor.value }));
    const editor = new ArgumentEditor(this.#call.approval?.parameters, this.#call.arguments, ({ problems, edited }) => {
      send.disabled = problems.length > 0 || !edited;
    });
    this.#instead(editor.node, send);
    editor.focus();
  }

  /** @param {"reject"|"respond"} decision */
  #write(decision) {
    const answers = decision === "respond";
    const label = answers ? "The result that the agent gets instead" : "What the agent should know (optional)";
    const field = make("textarea", { rows: "2", "aria-label": label, placeholder: label, "data-testid": "feedback" });
    const send = this.#button(answers ? "Send as its result" : "Reject", answers ? "primary" : "danger", `send-${decision}`, () => {
      this.#decide(decision, { feedback: field.value.trim() });
    });
    send.disabled = answers;
    field.addEventListener("input", () => { send.disabled = answers && !field.value.trim(); });
    field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !send.disabled) send.click();
    });
    this.#instead(field, send, answers ? [] : [this.#remember.node]);
    field.focus();
  }

  /** @param {Node} content @param {Node} send @param {Node[]} [below] */
  #instead(content, send, below = []) {
    const back = this.#button("Back", "ghost", "back", () => {
      this.#ask();
      this.focus();
    });
    this.#body.replaceChildren(content, ...below);
    this.#choices.replaceChildren(send, back);
    this.node.onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || !back.isConnected) return;
      event.stopPropagation();
      back.click();
    };
  }

  focus() {
    this.#choices.querySelector("button")?.focus();
  }

  /** @param {string} text @param {string} style @param {string} name @param {() => void} act */
  #button(text, style, name, act) {
    const button = make("button", { type: "button", class: `${style} small`, "data-testid": name }, text);
    button.addEventListener("click", act);
    return button;
  }

  /** @param {"approve"|"edit"|"reject"|"respond"} decision @param {{value?: any, feedback?: string}} [given] */
  async #decide(decision, { value, feedback } = {}) {
    const { session } = desk;
    const { call_id: id } = this.#call;
    if (!session) return;
    this.node.inert = true;
    this.node.setAttribute("aria-busy", "true");
    notify("");
    try {
      const remember = decision === "approve" || decision === "reject" ? this.#remember.value : undefined;
      if (decision === "edit") await session.edit(id, value);
      else if (decision === "respond") await session.respond(id, feedback ?? "");
      else await session[decision](id, { feedback, remember });
    } catch (error) {
      if (session !== desk.session) return;
      const taken = /** @type {any} */ (error).code === "already_resolved";
      complain(taken ? "It was decided already" : "Not decided", error);
      this.node.inert = false;
      this.node.removeAttribute("aria-busy");
    }
  }
}

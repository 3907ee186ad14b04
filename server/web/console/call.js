/** One tool call on the page: what was called with what, how far it is, who decided, and what came of it. */

import { ApprovalPanel } from "./approval.js";
import { argumentsOf, asText, brief, contentBefore, decisionText, duration, pretty, stateText } from "./describe.js";
import { desk } from "./desk.js";
import { diff } from "./diff.js";
import { make } from "./dom.js";
import { here, observing } from "./here.js";
import { HandResult } from "./hand.js";
import { unhighlight } from "./highlight.js";
import { codePart, diffPart } from "./parts.js";
import { Thread } from "./thread.js";
import { wholeTime } from "./times.js";

/** @typedef {import("../parley/calls.js").ToolCall} ToolCall */

/** The cards on the page by their elements, for those who look for one. @type {WeakMap<Element, CallCard>} */
export const cards = new WeakMap();

export class CallCard {
  /** @type {ToolCall|undefined} */
  #call;
  /** Arguments that are being written. */
  #written = "";
  #name = make("code", { class: "call-name" });
  #brief = make("code", { class: "call-brief" });
  #state = make("span", { class: "call-state" });
  #time = make("span", { class: "call-time" });
  #more;
  #progress = make("div", { class: "call-progress" });
  /** @type {ApprovalPanel|null} */
  #approval = null;
  /** @type {HandResult|null} */
  #hand = null;
  #thread = new Thread();
  /** What its open part was made of. @type {any[]|null} */
  #filled = null;
  /** Whether the reader has opened or closed it: then it stays so. */
  #touched = false;

  /** @param {string} id */
  constructor(id) {
    this.#more = make("details", { class: "call-more" }, make("summary", {}, this.#name, this.#brief, this.#time, this.#state));
    this.#more.addEventListener("toggle", () => this.#fill());
    this.#more.firstChild.addEventListener("click", () => { this.#touched = true; });
    this.#progress.hidden = true;
    this.node = make("section", { class: "call", "data-testid": "call", "data-call-id": id }, this.#more, this.#progress, this.#thread.node);
    cards.set(this.node, this);
  }

  /** Whether nothing will happen to it any more. */
  get settled() {
    return Boolean(this.#call?.done) && this.#thread.settled;
  }

  /**
   * @param {ToolCall|undefined} call undefined while its message is being written
   * @param {{name: string|null, arguments: string}} written what the message says of it
   */
  update(call, written) {
    this.#thread.update(call ? desk.conversation.threads.get(call.call_id) : undefined);
    if (call && call.client_id !== null && !call.done) this.#say(call); // clients come and go
    if (this.#call === call && (call || this.#written === written.arguments)) return;
    this.#call = call;
    this.#written = written.arguments;
    this.#name.textContent = call?.name ?? written.name ?? "…";
    this.#brief.textContent = call?.arguments === undefined ? brief(written.arguments) : brief(call.executed ?? call.arguments);
    this.#say(call);
    this.#draw(call);
    if (!this.#touched) this.#more.open = call?.state === "approval";
    this.#fill();
  }

  /** Brings what is to be decided to the reader. */
  focus() {
    this.#approval?.focus();
  }

  /** @param {ToolCall|undefined} call */
  #say(call) {
    const state = call?.state ?? "asked";
    const text = call ? stateText(call, here()) : "Is being written";
    if (this.node.dataset.state !== state) this.node.dataset.state = state;
    if (this.#state.textContent !== text) this.#state.textContent = text;
    this.node.setAttribute("aria-label", `${call?.name ?? "Tool"}: ${text}`);
  }

  /** @param {ToolCall|undefined} call */
  #draw(call) {
    this.#time.textContent = call?.done ? duration(call.duration_ms) : "";
    this.#drawProgress(call);
    if (call?.state === "approval") {
      if (this.#approval) this.#approval.update(call);
      else {
        this.#approval = new ApprovalPanel(call);
        this.#more.after(this.#approval.node);
      }
    } else if (this.#approval) {
      const focused = this.#approval.node.contains(document.activeElement);
      this.#approval.node.remove();
      this.#approval = null;
      if (focused) this.#more.firstChild.focus(); // not to the top of the page
    }
    const orphan = call?.state === "waiting" && !observing();
    if (orphan && !this.#hand) {
      this.#hand = new HandResult(call);
      this.#more.after(this.#hand.node);
    } else if (!orphan && this.#hand) {
      this.#hand.node.remove();
      this.#hand = null;
    }
  }

  /** @param {ToolCall|undefined} call */
  #drawProgress(call) {
    const { message = null, fraction = null } = (call?.state === "running" && call.progress) || {};
    this.#progress.hidden = message === null && fraction === null;
    if (this.#progress.hidden) return;
    const bar = fraction === null ? [] : [make("progress", { max: "1", value: String(fraction), "aria-label": `Progress of ${call?.name}` })];
    this.#progress.replaceChildren(...bar, make("span", { dir: "auto" }, message ?? ""));
  }

  /** Most are never opened: what is inside is made when it is. */
  #fill() {
    const call = this.#call;
    // What it is made of; progress is not, and must not take a selection away.
    const from = call ? [call.arguments, call.executed, call.approval?.resolved, call.result, call.error, call.done] : [this.#written];
    if (!this.#more.open || from.every((one, at) => this.#filled?.[at] === one)) return;
    this.#filled = from;
    const parts = call ? partsOf(call) : [codePart("Arguments", this.#written)];
    for (const code of this.#more.querySelectorAll("pre code")) unhighlight(code);
    this.#more.replaceChildren(this.#more.firstChild, ...parts);
  }
}

/** @param {ToolCall} call @returns {Node[]} */
function partsOf(call) {
  const parts = [];
  const given = argumentsOf(call);
  if (call.name === "write_file" && typeof given.content === "string") parts.push(...fileParts(call, given));
  else parts.push(codePart("Arguments", pretty(call.executed ?? call.arguments)));
  if (call.executed !== null) parts.push(diffPart("What a person changed", diff(pretty(call.arguments), pretty(call.executed))));
  const resolution = call.approval?.resolved;
  if (resolution) {
    parts.push(make("p", { class: "call-decision", "data-testid": "decision", title: wholeTime(resolution.at) },
      decisionText(resolution, here()), ...(resolution.feedback ? [": ", make("q", { dir: "auto" }, resolution.feedback)] : [])));
  }
  if (call.error !== null) parts.push(codePart(call.state === "failed" ? "Error" : "What the agent was told", asText(call.error.message ?? call.error), "text"));
  else if (call.done && call.result !== undefined) parts.push(codePart("Result", call.result === null ? "nothing" : pretty(call.result)));
  return parts;
}

/** A file that is written: what changes in it, as far as is known. @param {ToolCall} call @param {any} given */
function fileParts(call, given) {
  const before = contentBefore(desk.conversation.calls.values(), call);
  const title = `${given.path ?? "A file"}${before === null ? "" : ", against the version seen last"}`;
  const { path, content, ...rest } = given;
  const others = Object.keys(rest).length ? [codePart("Other arguments", pretty(rest))] : [];
  return [diffPart(title, diff(before ?? "", content)), ...others];
}

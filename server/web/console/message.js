/**
 * One message on the page. What a person wrote is shown as it was written; what an agent wrote is Markdown. A finished
 * message is shown as plain text first and is dressed when there is time: a session may have thousands.
 */

import { callNode } from "./calls.js";
import { copy, icon, make } from "./dom.js";
import { timeOfDay, wholeTime } from "./times.js";
import { MarkdownView } from "./view.js";

/** Why a message may end before it is complete, as people say it. @type {Record<string, string>} */
const ENDINGS = { cancelled: "cancelled", error: "error", interrupted: "interrupted", length: "cut off at its length limit" };

export class MessageNode {
  /** @type {any} */
  #message;
  #stamp = "";
  /** Whether it is all there, and nothing about it will change. */
  settled = false;
  /** @type {Map<string, {place: HTMLElement, view: MarkdownView|null, plain: string|null}>} */
  #texts = new Map();

  /** @param {any} message */
  constructor(message) {
    this.#message = message;
    this.node = make("li", {
      class: "message", "data-testid": "message", "data-role": message.role, "data-message-id": message.message_id,
    }, make("div", { class: "meta" }));
  }

  get message() {
    return this.#message;
  }

  /** Whether it still shows plain text for Markdown. */
  get undressed() {
    return [...this.#texts.values()].some(({ plain, view }) => view !== null && plain !== null);
  }

  /**
   * @param {any} message as it is now
   * @param {any[]} calls what it calls, with their state and their results
   * @param {boolean} later whether Markdown may wait
   * @returns {boolean} false when there is more to show soon
   */
  update(message, calls, later) {
    const stamp = JSON.stringify([message.done, message.finish_reason, calls]);
    const fresh = this.#message !== message || this.#stamp !== stamp;
    this.#message = message;
    if (fresh) this.#redress(message, calls, stamp);
    return this.#write(message, later && message.done);
  }

  /** Shows what was put off. */
  dress() {
    this.#write(this.#message, false);
  }

  /** @param {any} message @param {any[]} calls @param {string} stamp */
  #redress(message, calls, stamp) {
    this.#stamp = stamp;
    const { node } = this;
    node.dataset.done = String(message.done);
    const { timestamp, finish_reason: ending } = message;
    const time = make("time", { datetime: timestamp, title: wholeTime(timestamp) }, timeOfDay(timestamp));
    const meta = [make("span", { class: "who" }, speaker(message)), time];
    if (ENDINGS[ending]) meta.push(make("span", { class: "tag" }, ENDINGS[ending]));
    node.querySelector(".meta").replaceChildren(...meta);
    const open = new Set([...node.querySelectorAll(".call[open]")].map((/** @type {any} */ call) => call.dataset.callId));
    node.querySelector(".calls")?.remove();
    if (calls.length) node.append(make("div", { class: "calls" }, ...calls.map((call) => callNode(call, open.has(call.call_id)))));
    node.querySelector(".actions")?.remove();
    if (message.done && message.content) node.append(this.#actions());
  }

  #actions() {
    const button = make("button", { type: "button", class: "icon", title: "Copy", "aria-label": "Copy this message", "data-testid": "copy-message" }, icon("copy"));
    button.addEventListener("click", () => copy(button, this.#message.content, this.#texts.get("content")?.place));
    return make("div", { class: "actions" }, button);
  }

  /** @param {any} message @param {boolean} later @returns {boolean} */
  #write(message, later) {
    const written = message.role === "assistant";
    let complete = true;
    if (message.reasoning) complete = this.#text("reasoning", message.reasoning, written, message.done, later) && complete;
    if (message.content || written) complete = this.#text("content", message.content, written, message.done, later) && complete;
    return complete;
  }

  /** @param {string} kind @param {string} text @param {boolean} markdown @param {boolean} done @param {boolean} later */
  #text(kind, text, markdown, done, later) {
    const entry = this.#texts.get(kind) ?? this.#place(kind, markdown);
    const { place, view } = entry;
    if (view === null || (later && (entry.plain !== null || !place.hasChildNodes()))) {
      if (entry.plain !== text) place.textContent = entry.plain = text;
      place.classList.add("plain");
      return true;
    }
    if (entry.plain !== null) {
      place.replaceChildren();
      place.classList.remove("plain");
      entry.plain = null;
    }
    return view.update(text, done);
  }

  /** @param {string} kind @param {boolean} markdown */
  #place(kind, markdown) {
    const place = make("div", { class: `text ${kind}${markdown ? " prose" : ""}`, dir: "auto" });
    place.dataset.testid = kind === "content" ? "message-text" : "reasoning-text";
    const meta = this.node.querySelector(".meta");
    if (kind === "reasoning") meta.after(make("details", { class: "reasoning" }, make("summary", {}, "Reasoning"), place));
    else if (this.#message.role === "tool") meta.after(make("details", { class: "tool-text" }, make("summary", {}, "Result"), place));
    else (this.node.querySelector(":scope > .reasoning") ?? meta).after(place);
    const entry = { place, view: markdown ? new MarkdownView(place) : null, plain: null };
    this.#texts.set(kind, entry);
    return entry;
  }
}

/** @param {any} message */
function speaker({ role, agent_name: agent, agent_type: type, name }) {
  if (role === "user") return "You";
  if (role === "tool") return name ?? "Tool";
  return agent ?? type ?? (role === "assistant" ? "Assistant" : "System");
}

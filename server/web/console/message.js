/**
 * One message on the page. What a person wrote is shown as it was written; what an agent wrote is Markdown. A finished
 * message is shown as plain text first and is dressed when there is time: a session may have thousands.
 */

import { actionsOf } from "./branch.js";
import { CallCard } from "./call.js";
import { usageText } from "./describe.js";
import { make } from "./dom.js";
import { timeOfDay, wholeTime } from "./times.js";
import { MarkdownView } from "./view.js";

/** Why a message may end before it is complete, as people say it. @type {Record<string, string>} */
const ENDINGS = { cancelled: "cancelled", error: "error", interrupted: "interrupted", length: "cut off at its length limit" };

export class MessageNode {
  /** @type {any} */
  #message;
  #stamp = "";
  /** @type {Map<string, CallCard>} */
  #cards = new Map();
  #calls = make("div", { class: "calls" });
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
   * @param {import("../parley.js").Conversation} conversation that it stands in
   * @param {boolean} later whether Markdown may wait
   * @returns {boolean} false when there is more to show soon
   */
  update(message, conversation, later) {
    const turn = conversation.turns.get(message.turn_id ?? "");
    const last = message.role === "assistant" && message.finish_reason !== "tool_calls";
    const took = last && turn?.status ? usageText(turn.usage, turn.duration_ms) : "";
    const stamp = `${message.done} ${message.finish_reason} ${took}`;
    const fresh = this.#message !== message || this.#stamp !== stamp;
    this.#message = message;
    if (fresh) this.#redress(message, took);
    this.#stamp = stamp;
    this.#drawCalls(message, conversation.calls);
    // Nothing happens any more to a finished message whose calls have their results, in a turn that is over.
    this.settled = message.done && (!last || !turn || turn.status !== null) && [...this.#cards.values()].every((card) => card.settled);
    return this.#write(message, later && message.done);
  }

  /** The card of a call, if it is here. @param {string} id */
  card(id) {
    return this.#cards.get(id);
  }

  /** Shows what was put off. */
  dress() {
    this.#write(this.#message, false);
  }

  /** @param {any} message @param {string} took */
  #redress(message, took) {
    const { node } = this;
    node.dataset.done = String(message.done);
    const { timestamp, finish_reason: ending } = message;
    const time = make("time", { datetime: timestamp, title: wholeTime(timestamp) }, timeOfDay(timestamp));
    const meta = [make("span", { class: "who" }, speaker(message)), time];
    if (ENDINGS[ending]) meta.push(make("span", { class: "tag" }, ENDINGS[ending]));
    if (took) meta.push(make("span", { class: "took", "data-testid": "took", title: "What its turn took" }, took));
    node.querySelector(":scope > .meta").replaceChildren(...meta);
    const former = node.querySelector(":scope > .actions");
    const focused = former?.contains(document.activeElement);
    former?.remove();
    if (!message.done) return;
    const actions = actionsOf(message, () => this.#texts.get("content")?.place);
    if (actions) node.append(actions);
    if (focused) actions?.querySelector("button")?.focus();
  }

  /** Cards stay where they are: somebody may be writing in one. @param {any} message @param {Map<string, any>} calls */
  #drawCalls(message, calls) {
    const { tool_calls: wanted } = message;
    if (!wanted.length && !this.#cards.size) return;
    const ids = new Set(wanted.map((/** @type {any} */ call) => call.call_id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.node.remove();
      this.#cards.delete(id);
    }
    for (const written of wanted) {
      const { call_id: id } = written;
      const card = this.#cards.get(id) ?? new CallCard(id);
      if (!this.#cards.has(id)) this.#calls.append(card.node);
      this.#cards.set(id, card);
      card.update(calls.get(id), written);
    }
    if (this.#calls.parentNode !== this.node) this.node.append(this.#calls);
    const actions = this.node.querySelector(":scope > .actions");
    if (actions && actions.previousElementSibling !== this.#calls) this.node.append(actions);
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
    const meta = this.node.querySelector(":scope > .meta");
    if (kind === "reasoning") meta.after(make("details", { class: "reasoning" }, make("summary", {}, "Reasoning"), place));
    else if (this.#message.role === "tool") meta.after(make("details", { class: "tool-text" }, make("summary", {}, "Result"), place));
    else (this.node.querySelector(":scope > .reasoning") ?? meta).after(place);
    const entry = { place, view: markdown ? new MarkdownView(place) : null, plain: null };
    this.#texts.set(kind, entry);
    return entry;
  }
}

/** @param {any} message */
function speaker({ role, agent_name: agent, agent_type: type, name, parent_call_id: under }) {
  if (role === "user") return under ? "Task" : "You";
  if (role === "tool") return name ?? "Tool";
  return agent ?? type ?? (role === "assistant" ? "Assistant" : "System");
}

/**
 * Tool calls under the message that made them: what was called, with what, and what came of it. What a person has to
 * say about a call (approvals, and tools that run here) will have its place in the same card.
 */

import { make } from "./dom.js";

/** @type {Record<string, string>} */
const STATES = { asked: "asked for", running: "running", done: "done", failed: "failed" };
/** Of a result; the whole of it stands in the event log. */
const LONGEST = 20_000;

/**
 * What is known of a call that a message asked for.
 * @param {any} call
 * @param {Map<string, any>} calls from the conversation
 * @param {Map<string, any>} results tool messages by call: what a history has instead
 */
export function callState(call, calls, results) {
  const known = calls.get(call.call_id);
  const message = results.get(call.call_id);
  const done = Boolean(known?.done || message);
  const error = known?.error ?? null;
  const state = done ? (error ? "failed" : "done") : known ? "running" : "asked";
  const result = done && !error ? asText(known?.result ?? message?.content) : undefined;
  return { call_id: call.call_id, name: call.name ?? known?.name ?? "tool", arguments: call.arguments, state, done, error, result };
}

/** @param {any} value */
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? null));

/** @param {any} call as `callState` has it @param {boolean} open */
export function callNode({ call_id: id, name, arguments: text, state, error, result }, open) {
  const summary = make("summary", {},
    make("code", { class: "call-name" }, name), make("code", { class: "call-brief" }, brief(text)),
    make("span", { class: "call-state" }, STATES[state]));
  const card = make("details", { class: "call", "data-testid": "call", "data-state": state, "data-call-id": id }, summary);
  card.open = open;
  // Most are never opened.
  const fill = () => {
    if (!card.open || card.childElementCount > 1) return;
    card.append(part("Arguments", pretty(text)));
    if (error) card.append(part("Error", typeof error === "string" ? error : error.message ?? JSON.stringify(error)));
    else if (result !== undefined) card.append(part("Result", pretty(result)));
  };
  card.addEventListener("toggle", fill);
  fill();
  return card;
}

/** @param {string} title @param {string} text */
function part(title, text) {
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return make("div", { class: "call-part" }, make("h3", {}, title), make("pre", { tabindex: "0" }, shown));
}

/** @param {string|undefined} text */
const brief = (text) => (text ?? "").replace(/\s+/g, " ").slice(0, 200);

/** JSON with line breaks; anything else as it is. @param {string|undefined} text */
export function pretty(text) {
  try {
    const value = JSON.parse(text ?? "");
    return typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : String(text);
  } catch {
    return text ?? "";
  }
}

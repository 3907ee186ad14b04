/** The conversation: its messages, what waits, and what is being sent. */

import { callState } from "./calls.js";
import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { followAgain, news, startFollowing, stay } from "./follow.js";
import { forgetHighlights } from "./highlight.js";
import { MessageNode } from "./message.js";

/** Messages at the end that are dressed at once; the others when they come near, or when there is nothing else to do. */
const DRESSED_AT_ONCE = 12;
/** Milliseconds of a frame that may go into dressing while nobody waits. */
const BUDGET = 8;
/** What is read out of a message; the rest is for those who ask for it. */
const LONGEST_ANNOUNCEMENT = 2_000;

/** What is on the page, in order. @type {Map<string, MessageNode>} */
const drawn = new Map();
/** Whose Markdown was put off. @type {Map<Element, MessageNode>} */
const undressed = new Map();
let dressing = false;
/** A message that is to be shown as soon as it is there. @type {string|null} */
let wanted = null;

function draw() {
  const { messages, queue, turn } = desk.conversation;
  const complete = drawMessages(messages);
  drawQueue(queue);
  $("empty").hidden = messages.length + queue.length + desk.sending.size > 0 || desk.session?.state !== "open";
  $("messages").setAttribute("aria-busy", String(turn !== null));
  if (undressed.size) dressSoon();
  if (wanted) show(wanted);
  if (!complete) requestAnimationFrame(draw);
}

/** @param {any[]} messages @returns {boolean} */
function drawMessages(messages) {
  /** @type {Map<string, any>} */
  const results = new Map();
  for (const message of messages) if (message.role === "tool" && message.call_id) results.set(message.call_id, message);
  const called = new Set(messages.flatMap((message) => message.tool_calls.map((/** @type {any} */ call) => call.call_id)));
  // A result stands in the card of its call.
  const shown = messages.filter((message) => message.role !== "tool" || !called.has(message.call_id));
  const ids = new Set(shown.map((message) => message.message_id));
  for (const [id, entry] of drawn) if (!ids.has(id)) forget(id, entry);
  const list = $("messages");
  let place = list.firstElementChild;
  let complete = true;
  for (const [index, message] of shown.entries()) {
    const entry = drawn.get(message.message_id) ?? new MessageNode(message);
    if (!drawn.has(message.message_id)) drawn.set(message.message_id, entry);
    const later = index < shown.length - DRESSED_AT_ONCE;
    if (entry.node.classList.contains("late") === later) entry.node.classList.toggle("late", !later);
    complete = drawMessage(entry, message, results, later) && complete;
    if (entry.node === place) place = place.nextElementSibling;
    else list.insertBefore(entry.node, place);
  }
  return complete;
}

/** @param {MessageNode} entry @param {any} message @param {Map<string, any>} results @param {boolean} later */
function drawMessage(entry, message, results, later) {
  if (entry.settled && entry.message === message) return true;
  const calls = message.tool_calls.map((/** @type {any} */ call) => callState(call, desk.conversation.calls, results));
  const complete = entry.update(message, calls, later);
  // Nothing happens any more to a finished message whose calls have their results.
  entry.settled = message.done && calls.every((/** @type {any} */ call) => call.done);
  if (entry.undressed && !undressed.has(entry.node)) {
    undressed.set(entry.node, entry);
    nearby.observe(entry.node);
  }
  return complete;
}

/** @param {string} id @param {MessageNode} entry */
function forget(id, entry) {
  nearby.unobserve(entry.node);
  undressed.delete(entry.node);
  entry.node.remove();
  drawn.delete(id);
}

/** @param {Element} node */
function dress(node) {
  const entry = undressed.get(node);
  undressed.delete(node);
  nearby.unobserve(node);
  entry?.dress();
}

const nearby = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) dress(target);
}, { root: $("scroll"), rootMargin: "1200px 0px" });

/** Dresses what is far away, newest first, in the time that is left. */
function dressSoon() {
  if (dressing) return;
  dressing = true;
  const idle = /** @type {any} */ (globalThis).requestIdleCallback ?? ((/** @type {() => void} */ work) => setTimeout(work, 30));
  idle(() => {
    dressing = false;
    const end = performance.now() + BUDGET;
    for (const node of [...undressed.keys()].reverse()) {
      dress(node);
      if (performance.now() > end) break;
    }
    if (undressed.size) dressSoon();
  });
}

/** @param {any[]} queue */
function drawQueue(queue) {
  const waiting = queue.map((one) => ["queued", one.content]);
  const entries = [...waiting, ...[...desk.sending.values()].map((text) => ["sending…", text])].map(([state, text]) => {
    const meta = make("div", { class: "meta" }, state);
    return make("li", { class: "message", "data-testid": "waiting", "data-role": "user" }, meta, make("div", { class: "text" }, text));
  });
  if (entries.length || $("queue").childElementCount) $("queue").replaceChildren(...entries);
}

/** Brings a message into view, now or when it has come. @param {string} id */
export function reveal(id) {
  wanted = id;
  show(id);
}

/** @param {string} id */
function show(id) {
  const entry = drawn.get(id);
  if (!entry || desk.session?.state !== "open") return;
  wanted = null;
  stay();
  if (undressed.has(entry.node)) dress(entry.node);
  entry.node.scrollIntoView({ block: "center" });
  for (const former of $("messages").querySelectorAll(".revealed")) former.classList.remove("revealed");
  entry.node.classList.add("revealed");
}

/** For those who listen instead of looking: whole messages, never a word at a time. @param {any} event */
function announce({ event_type: type, payload }) {
  if (desk.session?.state !== "open") return; // a replay is no news
  if (type === "message_created" || type === "message_delta") news();
  if (type === "task_started") $("announcer").textContent = `${payload.agent_name ?? "The agent"} is answering.`;
  else if (type === "message_created" && payload.role === "assistant") {
    $("announcer").textContent = payload.content.slice(0, LONGEST_ANNOUNCEMENT);
  }
}

export function startChat() {
  startFollowing();
  desk.on("open", () => {
    wanted = null;
    undressed.clear();
    nearby.disconnect();
    drawn.clear();
    forgetHighlights();
    $("messages").replaceChildren();
    $("announcer").textContent = "";
    followAgain();
  });
  for (const name of ["change", "sent", "state"]) desk.on(name, draw);
  desk.on("event", announce);
}

/** The conversation: its messages, what was asked of people, and where agents took turns. */

import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { followAgain, news, startFollowing, stay } from "./follow.js";
import { forgetHighlights } from "./highlight.js";
import { cards } from "./call.js";
import { MessageNode } from "./message.js";
import { drawQueue } from "./queue.js";
import { timeOfDay, wholeTime } from "./times.js";

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
/** Where another agent took over. @type {Map<any, HTMLElement>} */
const handovers = new Map();
/** A message, or a call, that is to be shown as soon as it is there. @type {{message?: string, call?: string}|null} */
let wanted = null;

function draw() {
  const { messages, queue, turn, switches } = desk.conversation;
  const complete = drawMessages(messages);
  drawQueue();
  drawAsked();
  $("empty").hidden = messages.length + queue.length + switches.length + desk.sending.size > 0 || desk.session?.state !== "open";
  $("messages").setAttribute("aria-busy", String(turn !== null));
  if (undressed.size) dressSoon();
  if (wanted) show(wanted);
  if (!complete) requestAnimationFrame(draw);
}

/** @param {any[]} messages @returns {boolean} */
function drawMessages(messages) {
  const { switches } = desk.conversation;
  const called = new Set(messages.flatMap((message) => message.tool_calls.map((/** @type {any} */ call) => call.call_id)));
  // A result stands in the card of its call.
  const shown = messages.filter((message) => message.role !== "tool" || !called.has(message.call_id));
  const ids = new Set(shown.map((message) => message.message_id));
  for (const [id, entry] of drawn) if (!ids.has(id)) forget(id, entry);
  const list = $("messages");
  let place = list.firstElementChild;
  const put = (/** @type {Element} */ node) => {
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  };
  let complete = true;
  let handed = 0;
  for (const [index, message] of shown.entries()) {
    while (handed < switches.length && (message.seq ?? Infinity) > (switches[handed].seq ?? 0)) put(handover(switches[handed++]));
    const entry = drawn.get(message.message_id) ?? new MessageNode(message);
    if (!drawn.has(message.message_id)) drawn.set(message.message_id, entry);
    const later = index < shown.length - DRESSED_AT_ONCE;
    if (entry.node.classList.contains("late") === later) entry.node.classList.toggle("late", !later);
    complete = drawMessage(entry, message, later) && complete;
    put(entry.node);
  }
  for (const each of switches.slice(handed)) put(handover(each));
  return complete;
}

/** @param {any} each */
function handover(each) {
  const known = handovers.get(each);
  if (known) return known;
  const { from_agent: from, to_agent: to, reason, cause, timestamp } = each;
  const text = cause === "agent" ? `${from} handed over to ${to}` : `${to} answers from here on`;
  const node = make("li", { class: "handover", "data-testid": "handover", title: wholeTime(timestamp) },
    make("span", {}, text, ...(reason ? [": ", make("q", { dir: "auto" }, reason)] : [])),
    make("time", { datetime: timestamp }, timeOfDay(timestamp)));
  handovers.set(each, node);
  return node;
}

/** @param {MessageNode} entry @param {any} message @param {boolean} later */
function drawMessage(entry, message, later) {
  if (entry.settled && entry.message === message) return true;
  const complete = entry.update(message, desk.conversation, later);
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

// ------------------------------------------------------------------------------------- what is to be decided

/** Says above the message box how much waits for a decision, wherever it stands. */
function drawAsked() {
  const { length } = desk.conversation.approvals;
  $("asked").hidden = length === 0;
  const text = length === 1 ? "A tool call waits for a decision." : `${length} tool calls wait for decisions.`;
  if (length && $("asked-text").textContent !== text) $("asked-text").textContent = text;
}

/** Brings the oldest call that somebody has to decide about into view, and the focus to its choices. */
export function showAsked() {
  const [call] = desk.conversation.approvals;
  if (call) reveal({ call: call.call_id });
}

/** @param {string} id of a call @returns {{entry: MessageNode, card: import("./call.js").CallCard}|null} */
function cardOf(id) {
  const node = $("messages").querySelector(`[data-call-id="${CSS.escape(id)}"]`);
  const entry = drawn.get(node?.closest("#messages > .message")?.getAttribute("data-message-id") ?? "");
  const card = cards.get(node ?? document.body);
  return entry && card ? { entry, card } : null;
}

/** Brings a message or a call into view, now or when it has come. @param {{message?: string, call?: string}} what */
export function reveal(what) {
  wanted = what;
  show(what);
}

/** @param {{message?: string, call?: string}} what */
function show({ message, call }) {
  const found = call ? cardOf(call) : null;
  const entry = found?.entry ?? drawn.get(message ?? "");
  if (!entry || desk.session?.state !== "open") return;
  wanted = null;
  stay();
  if (undressed.has(entry.node)) dress(entry.node);
  (found?.card.node ?? entry.node).scrollIntoView({ block: "center" });
  for (const former of $("messages").querySelectorAll(".revealed")) former.classList.remove("revealed");
  (found?.card.node ?? entry.node).classList.add("revealed");
  found?.card.focus();
}

/** For those who listen instead of looking: whole messages, never a word at a time. @param {any} event */
function announce({ event_type: type, payload }) {
  if (desk.session?.state !== "open") return; // a replay is no news
  if (type === "message_created" || type === "message_delta") news();
  if (type === "task_started") $("announcer").textContent = `${payload.agent_name ?? "The agent"} is answering.`;
  else if (type === "message_created" && payload.role === "assistant") {
    if (payload.content) $("announcer").textContent = payload.content.slice(0, LONGEST_ANNOUNCEMENT);
  } else if (type === "approval_required") {
    $("announcer").textContent = `${payload.name} waits for a decision: ${payload.reason ?? "it asks before it runs"}.`;
  } else if (type === "approval_timeout_warning") {
    $("announcer").textContent = `A decision is due in ${Math.round(payload.remaining_ms / 1000)} seconds.`;
  } else if (type === "agent_switched") {
    $("announcer").textContent = `${payload.to_agent} answers from here on.`;
  }
}

export function startChat() {
  startFollowing();
  desk.on("open", () => {
    wanted = null;
    undressed.clear();
    nearby.disconnect();
    drawn.clear();
    handovers.clear();
    forgetHighlights();
    $("messages").replaceChildren();
    $("announcer").textContent = "";
    followAgain();
  });
  for (const name of ["change", "sent", "state"]) desk.on(name, draw);
  desk.on("event", announce);
  $("asked-show").addEventListener("click", showAsked);
}

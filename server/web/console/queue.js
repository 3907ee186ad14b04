/** Messages that wait for their turn: their order, by pointer and by keyboard, taking one back, sending one at once. */

import { desk } from "./desk.js";
import { $, icon, make } from "./dom.js";
import { observing } from "./here.js";
import { complain } from "./notice.js";

/** What a message does that is not just put behind the others. @type {Record<string, string>} */
const KINDS = { interrupt: "interrupts", steer: "goes into the running turn" };

/** The entries on the page by their messages. @type {Map<string, HTMLElement>} */
const drawn = new Map();
let stamp = "";
/** The message that is being dragged. @type {string|null} */
let dragged = null;

const ids = () => desk.conversation.queue.map((one) => one.message_id);

/** Draws what waits, and what is on its way; nothing while somebody drags. */
export function drawQueue() {
  const { queue } = desk.conversation;
  const sending = [...desk.sending.values()];
  const now = JSON.stringify([queue, sending, observing()]);
  if (now === stamp || dragged) return;
  stamp = now;
  const focused = /** @type {HTMLElement|null} */ (document.activeElement);
  const kept = { id: focused?.closest?.("#queue [data-message-id]")?.getAttribute("data-message-id"), act: focused?.dataset?.act };
  drawn.clear();
  for (const [index, one] of queue.entries()) drawn.set(one.message_id, entry(one, index, queue.length));
  $("queue").replaceChildren(...drawn.values(), ...sending.map(onItsWay));
  // Whoever moves a message by keyboard goes along with it.
  const there = kept.id ? drawn.get(kept.id) : undefined;
  const button = there?.querySelector(`[data-act="${kept.act ?? ""}"]:not(:disabled)`);
  /** @type {HTMLElement|undefined} */ (button ?? there)?.focus();
}

/** @param {string} text */
function onItsWay(text) {
  const meta = make("div", { class: "meta" }, "sending…");
  return make("li", { class: "message", "data-testid": "waiting", "data-role": "user" }, meta, make("div", { class: "text", dir: "auto" }, text));
}

/** @param {any} one @param {number} index @param {number} length */
function entry({ message_id: id, content, on_busy: kind, agent_type: agent }, index, length) {
  const tags = [...(kind ? [KINDS[kind]] : []), ...(agent ? [`for ${agent}`] : [])];
  const meta = make("div", { class: "meta" }, "queued", ...tags.map((tag) => make("span", { class: "tag now" }, tag)));
  const node = make("li", { class: "message", "data-testid": "waiting", "data-role": "user", "data-message-id": id, tabindex: "-1" },
    meta, make("div", { class: "text", dir: "auto" }, content));
  if (observing()) return node;
  const excerpt = content.slice(0, 40);
  const act = (/** @type {string} */ name, /** @type {any} */ picture, /** @type {string} */ label, /** @type {() => void} */ work, off = false) => {
    const button = make("button", { type: "button", class: "icon", title: label, "aria-label": `${label}: ${excerpt}`, "data-act": name, "data-testid": `queue-${name}` }, icon(picture));
    button.disabled = off;
    button.addEventListener("click", work);
    return button;
  };
  node.append(make("div", { class: "queue-actions" },
    act("up", "up", "Earlier", () => move(id, -1), index === 0), act("down", "down", "Later", () => move(id, 1), index === length - 1),
    act("now", "now", "Stop the turn and send this now", () => sendNow(id)), act("remove", "close", "Take back", () => takeBack(id))));
  draggable(node, id);
  return node;
}

/** @param {string} what @param {() => Promise<any>|undefined} work what is refused is said */
async function attempt(what, work) {
  const { session } = desk;
  try {
    await work();
  } catch (error) {
    if (session === desk.session) complain(what, error);
  }
}

/** @param {string[]} order */
const reorder = (order) => attempt("The order was not changed", () => desk.session?.reorder(order));

/** @param {string} id @param {number} by */
function move(id, by) {
  const order = ids();
  const at = order.indexOf(id);
  if (at < 0 || at + by < 0 || at + by >= order.length) return;
  order.splice(at, 1);
  order.splice(at + by, 0, id);
  reorder(order);
}

/** @param {string} id */
const takeBack = (id) => attempt("It was not taken back", async () => {
  const text = desk.conversation.queue.find((one) => one.message_id === id)?.content ?? "";
  await desk.session?.unqueue(id);
  // What was written is not lost.
  if (!$("composer").value) {
    $("composer").value = text;
    $("composer").dispatchEvent(new Event("input"));
  }
});

/** First in the queue, and then the turn is stopped: the next one is its. @param {string} id */
const sendNow = (id) => attempt("It was not sent now", async () => {
  const order = ids();
  if (order[0] !== id) await desk.session?.reorder([id, ...order.filter((other) => other !== id)]);
  await desk.stop();
});

// ---------------------------------------------------------------------------------------------- by pointer

/** @param {HTMLElement} node @param {string} id */
function draggable(node, id) {
  node.draggable = true;
  node.addEventListener("dragstart", (event) => {
    dragged = id;
    node.classList.add("dragged");
    event.dataTransfer?.setData("text/plain", node.querySelector(".text")?.textContent ?? "");
  });
  node.addEventListener("dragover", (event) => {
    const moving = drawn.get(dragged ?? "");
    if (!moving) return;
    event.preventDefault();
    if (moving === node) return;
    const { top, height } = node.getBoundingClientRect();
    if (event.clientY < top + height / 2) node.before(moving);
    else node.after(moving);
  });
  node.addEventListener("drop", (event) => event.preventDefault());
  node.addEventListener("dragend", () => dropped(node));
  node.addEventListener("keydown", (event) => {
    if (!event.altKey || (event.key !== "ArrowUp" && event.key !== "ArrowDown")) return;
    event.preventDefault();
    move(id, event.key === "ArrowUp" ? -1 : 1);
  });
}

/** @param {HTMLElement} node */
function dropped(node) {
  dragged = null;
  node.classList.remove("dragged");
  const left = new Set(ids());
  const order = [...$("queue").querySelectorAll("[data-message-id]")].map((each) => each.getAttribute("data-message-id") ?? "").filter((id) => left.has(id));
  stamp = ""; // as the server has it, until it says otherwise
  if (order.length === left.size && order.join() !== ids().join()) reorder(order);
  else drawQueue();
}

export function startQueue() {
  desk.on("open", () => {
    dragged = null;
    stamp = "";
  });
}

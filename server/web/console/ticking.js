/** Things that change by themselves each second: times that are left. One timer for all, and none without them. */

import { remaining } from "./describe.js";
import { make } from "./dom.js";

/** Elements and the moment they count down to. @type {Map<HTMLElement, number>} */
const counting = new Map();
/** @type {any} */
let timer = null;
/** Milliseconds before the end from which it is urgent. */
const URGENT = 60_000;

/** @param {HTMLElement} element @param {number} end */
function show(element, end) {
  const left = end - Date.now();
  element.textContent = left > 0 ? `expires in ${remaining(left)}` : "expired";
  element.classList.toggle("urgent", left < URGENT);
}

function tick() {
  for (const [element, end] of counting) {
    if (element.isConnected) show(element, end);
    else counting.delete(element);
  }
  if (counting.size) return;
  clearInterval(timer);
  timer = null;
}

/** @param {string|null} at a moment; none: never @returns {HTMLElement} says how long it is until then */
export function countdown(at) {
  const end = at === null ? Number.NaN : Date.parse(at);
  if (Number.isNaN(end)) return make("span", { class: "countdown" }, "never expires");
  const element = make("time", { class: "countdown", datetime: /** @type {string} */ (at), "data-testid": "countdown" });
  show(element, end);
  // It is put on the page a moment later.
  queueMicrotask(() => {
    counting.set(element, end);
    timer ??= setInterval(tick, 1_000);
  });
  return element;
}

/** The events behind the page: filtered, paused, opened, copied. Nothing is drawn while the panel is closed. */

import { desk } from "./desk.js";
import { $, copy, make } from "./dom.js";
import { EventBuffer, passes } from "./events.js";

/** Lines on the page at once, the newest; the filter finds the others. */
const MOST_LINES = 300;
const BRIEF = 160;
/** Of an opened event; copying gives all of it. */
const LONGEST = 100_000;

const buffer = new EventBuffer();
const filter = { text: "", kind: "all" };
/** Lines by the number of their entry. @type {Map<number, HTMLElement>} */
const lines = new Map();
/** The number of the last entry that may be drawn while it is paused. @type {number|null} */
let paused = null;
let drawing = false;
/** @type {Set<number>} */
const open = new Set();

/** @param {import("./events.js").Entry} entry */
function line(entry) {
  const { number, type, seq, kind, text, count } = entry;
  const summary = make("summary", {},
    make("span", { class: "seq" }, seq === null ? "" : String(seq)),
    make("span", { class: "type" }, count > 1 ? `${type} ×${count}` : type),
    make("span", { class: "payload" }, text.length > BRIEF ? `${text.slice(0, BRIEF)}…` : text));
  const details = make("details", {}, summary);
  details.addEventListener("toggle", () => expand(details, entry));
  details.open = open.has(number);
  return make("li", { "data-testid": "log-line", "data-type": type, "data-kind": kind, "data-count": String(count) }, details);
}

/** @param {HTMLDetailsElement} details @param {import("./events.js").Entry} entry */
function expand(details, entry) {
  if (details.open) open.add(entry.number);
  else open.delete(entry.number);
  if (!details.open || details.childElementCount > 1) return;
  const text = JSON.stringify(entry.event, null, 2);
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}\n… ${text.length - LONGEST} more characters; copy it to see them` : text;
  const pre = make("pre", { tabindex: "0", "data-testid": "log-payload" }, shown);
  const button = make("button", { type: "button", class: "ghost small", "data-testid": "log-copy" }, "Copy JSON");
  button.addEventListener("click", () => copy(button, text, pre));
  details.append(make("div", { class: "event" }, button, pre));
}

function redraw() {
  if (drawing || $("log-panel").hidden || $("inspector").hidden) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

/** Draws what is new, and lets go of what is too old; a line that is there stays, and with it a selection. */
function draw() {
  const list = $("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const wanted = buffer.entries.filter((entry) => entry.number <= (paused ?? Infinity) && passes(entry, filter));
  const shown = wanted.slice(-MOST_LINES);
  const numbers = new Set(shown.map((entry) => entry.number));
  for (const [number, node] of lines) {
    if (numbers.has(number)) continue;
    node.remove();
    lines.delete(number);
  }
  let place = list.firstElementChild;
  for (const entry of shown) {
    const former = lines.get(entry.number);
    const stale = former && former.dataset.count !== String(entry.count) && paused === null;
    const node = former && !stale ? former : line(entry);
    if (stale) former.replaceWith(node);
    if (stale && place === former) place = node;
    lines.set(entry.number, node);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
  const all = buffer.entries.length;
  const later = paused === null ? 0 : buffer.entries.filter((entry) => entry.number > /** @type {number} */ (paused)).length;
  const counts = [wanted.length === all ? `${all} events` : `${wanted.length} of ${all} events`];
  if (shown.length < wanted.length) counts.push(`the newest ${shown.length} shown`);
  if (buffer.dropped) counts.push(`${buffer.dropped} older ones let go`);
  if (later) counts.push(`${later} since the pause`);
  $("log-count").textContent = counts.join(", ");
  $("cursor").textContent = desk.session?.cursor ?? "–";
  if (atEnd && paused === null) list.scrollTop = list.scrollHeight;
}

/** @param {boolean} pause */
function setPaused(pause) {
  paused = pause ? (buffer.entries.at(-1)?.number ?? 0) : null;
  $("log-pause").setAttribute("aria-pressed", String(pause));
  $("log-pause").textContent = pause ? "Resume" : "Pause";
  redraw();
}

/** The panel came into sight. */
export function logShown() {
  draw();
  $("log").scrollTop = $("log").scrollHeight;
}

export function startLog() {
  desk.on("open", () => {
    buffer.clear();
    open.clear();
    setPaused(false);
  });
  desk.on("event", (event) => {
    buffer.add(event);
    redraw();
  });
  $("log-kinds").addEventListener("click", (/** @type {any} */ { target }) => {
    const button = target.closest("[data-kind]");
    if (!button) return;
    filter.kind = button.dataset.kind;
    for (const each of $("log-kinds").children) each.setAttribute("aria-pressed", String(each === button));
    redraw();
  });
  $("log-filter").addEventListener("input", () => {
    filter.text = $("log-filter").value;
    redraw();
  });
  $("log-pause").addEventListener("click", () => setPaused(paused === null));
  $("log-clear").addEventListener("click", () => {
    buffer.clear();
    redraw();
  });
}

/**
 * The rooms beside the conversation. Where there is space they stand next to it; where there is not they are sheets that
 * lie over it: then the rest of the page is inert, so focus stays inside, and Escape or a tap beside closes them.
 */

import { sessionShown } from "./about.js";
import { agentsShown } from "./agents.js";
import { auditShown } from "./audit.js";
import { $ } from "./dom.js";
import { decisionsShown } from "./inbox.js";
import { logShown } from "./log.js";

const narrow = matchMedia("(max-width: 46rem)");
const tight = matchMedia("(max-width: 70rem)");
/** What is done when a tab comes into sight, in the order of the tabs. */
const SHOWN = { decisions: decisionsShown, agents: agentsShown, session: sessionShown, audit: auditShown, log: logShown };
/** @typedef {keyof typeof SHOWN} TabName */
const NAMES = /** @type {TabName[]} */ (Object.keys(SHOWN));
const tab = (/** @type {TabName} */ name) => $(`tab-${name}`);
const panel = (/** @type {TabName} */ name) => $(`${name}-panel`);
/** Not every tab has a button of its own. */
const toggle = (/** @type {TabName} */ name) => $(`${name}-toggle`);

/** Who had the focus before a sheet was opened. @type {HTMLElement|null} */
let opener = null;

const sidebar = () => $("sessions-panel");
const inspector = () => $("inspector");

/** The sheet that lies over the page, if one does. @returns {HTMLElement|null} */
function sheet() {
  if (tight.matches && !inspector().hidden) return inspector();
  return narrow.matches && sidebar().classList.contains("shown") ? sidebar() : null;
}

/** Makes the page agree with what is open. */
function arrange() {
  const top = sheet();
  for (const room of [$("skip"), sidebar(), $("chat"), inspector()]) room.inert = top !== null && room !== top;
  $("backdrop").hidden = top === null;
  top?.setAttribute("role", "dialog");
  for (const room of [sidebar(), inspector()]) if (room !== top) room.removeAttribute("role");
  for (const room of [sidebar(), inspector()]) room.toggleAttribute("aria-modal", room === top);
  $("sessions-toggle").setAttribute("aria-expanded", String(sidebar().classList.contains("shown")));
  for (const name of NAMES) toggle(name)?.setAttribute("aria-expanded", String(!inspector().hidden && !panel(name).hidden));
}

/** Focus goes into a sheet; beside the conversation, a panel leaves it where it is. @param {HTMLElement} room @param {string} target */
function enter(room, target) {
  const before = /** @type {HTMLElement|null} */ (document.activeElement);
  arrange();
  if (sheet() !== room) return;
  opener = before;
  $(target).focus();
}

/** @param {HTMLElement} [room] whose closing gives the focus back */
function leave(room) {
  const inside = room?.contains(document.activeElement) ?? true;
  arrange();
  if (inside) opener?.focus();
  opener = null;
}

/** @param {TabName} name */
export function showInspector(name) {
  for (const each of NAMES) {
    tab(each).setAttribute("aria-selected", String(each === name));
    tab(each).tabIndex = each === name ? 0 : -1;
    panel(each).hidden = each !== name;
  }
  const was = inspector().hidden;
  inspector().hidden = false;
  if (was) enter(inspector(), `tab-${name}`);
  else arrange();
  SHOWN[name]();
}

/** @param {TabName} name */
export function toggleInspector(name) {
  if (!inspector().hidden && !panel(name).hidden) closeInspector();
  else showInspector(name);
}

function closeInspector() {
  inspector().hidden = true;
  leave(inspector());
}

/** Brings the sessions into view where they are a sheet. @param {string} [target] what gets the focus then */
export function showSessions(target = "search") {
  if (!narrow.matches) return;
  sidebar().classList.add("shown");
  enter(sidebar(), target);
}

export function closeSessions() {
  if (!sidebar().classList.contains("shown")) return;
  sidebar().classList.remove("shown");
  leave(sidebar());
}

/** @returns {boolean} whether there was a sheet */
export function closeSheet() {
  const top = sheet();
  if (top === null) return false;
  if (top === inspector()) closeInspector();
  else closeSessions();
  return true;
}

/** Arrow keys between the tabs, as the pattern wants it. @param {KeyboardEvent} event */
function walkTabs(event) {
  if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
  const at = NAMES.findIndex((name) => tab(name) === document.activeElement);
  const step = event.key === "ArrowLeft" ? -1 : 1;
  const to = event.key === "Home" ? 0 : event.key === "End" ? NAMES.length - 1 : (at + step + NAMES.length) % NAMES.length;
  event.preventDefault();
  showInspector(NAMES[to]);
  tab(NAMES[to]).focus();
}

export function startPanels() {
  for (const name of NAMES) {
    toggle(name)?.addEventListener("click", () => toggleInspector(name));
    tab(name).addEventListener("click", () => showInspector(name));
    tab(name).addEventListener("keydown", walkTabs);
  }
  $("inspector-close").addEventListener("click", closeInspector);
  $("sessions-toggle").addEventListener("click", () => {
    if (sidebar().classList.contains("shown")) closeSessions();
    else showSessions("new-session");
  });
  sidebar().querySelector("[data-closes-sheet]").addEventListener("click", closeSessions);
  $("backdrop").addEventListener("click", closeSheet);
  for (const query of [narrow, tight]) query.addEventListener("change", arrange);
}

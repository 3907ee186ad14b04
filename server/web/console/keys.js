/** The keyboard: what each key does, said once, for the page and for its help. */

import { showAsked } from "./chat.js";
import { stop } from "./composer.js";
import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { followAgain } from "./follow.js";
import { forEver } from "./keep.js";
import { closeSheet, showSessions, toggleInspector } from "./panels.js";
import { clearSearch } from "./sessions.js";

/** Single keys get in the way of those who dictate (WCAG 2.1.4): they can be switched off. */
const off = forEver("single-keys-off");
const apple = /Mac|iPhone|iPad/.test(navigator.platform);

function search() {
  showSessions("search");
  $("search").focus();
  $("search").select();
}

/** @type {{keys: string[], about: string, single?: string, run?: () => void}[]} */
const SHORTCUTS = [
  { keys: ["/"], single: "/", about: "search the sessions", run: search },
  { keys: [apple ? "⌘" : "Ctrl", "K"], about: "the same, from anywhere" },
  { keys: ["↓", "↑", "Enter"], about: "go through what was found, and open it" },
  { keys: ["Delete"], about: "delete the chosen session, after a question" },
  { keys: ["n"], single: "n", about: "new session", run: () => $("new-session").click() },
  { keys: ["i"], single: "i", about: "write a message", run: () => $("composer").focus() },
  { keys: ["Enter"], about: "send it" },
  { keys: ["Shift", "Enter"], about: "break the line" },
  { keys: [apple ? "⌘" : "Ctrl", "Enter"], about: "send it at once: it interrupts a running turn" },
  { keys: ["w"], single: "w", about: "go to the call that waits for a decision", run: showAsked },
  { keys: ["Esc"], about: "close what is open, empty the search, stop the answer, or leave the message box" },
  { keys: ["l"], single: "l", about: "jump to the latest message", run: followAgain },
  { keys: ["Alt", "↑", "↓"], about: "move a waiting message" },
  { keys: ["d"], single: "d", about: "decisions of all sessions, and rules", run: () => toggleInspector("decisions") },
  { keys: ["p"], single: "p", about: "people and usage", run: () => toggleInspector("session") },
  { keys: ["u"], single: "u", about: "audit and figures", run: () => toggleInspector("audit") },
  { keys: ["a"], single: "a", about: "agents", run: () => toggleInspector("agents") },
  { keys: ["e"], single: "e", about: "event log", run: () => toggleInspector("log") },
  { keys: ["?"], single: "?", about: "this list", run: help },
];

function help() {
  $("help-dialog").showModal();
}

/** Whether a key would be a letter of a text. @param {EventTarget|null} target */
function writes(target) {
  const element = /** @type {HTMLElement|null} */ (target);
  return element?.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]") !== null;
}

/** @param {KeyboardEvent} event */
function escape(event) {
  // A dialog or a popover closes by itself.
  if (document.querySelector("dialog[open], :popover-open")) return;
  const searching = document.activeElement === $("search") || $("session-list").contains(document.activeElement);
  if (searching && clearSearch()) $("search").focus();
  else if (!closeSheet()) {
    if (searching) $("composer").focus();
    else if (desk.conversation.turn) stop();
    else $("scroll").focus({ preventScroll: true }); // out of the message box, to where single keys work
  }
  event.preventDefault();
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.isComposing) return;
  if (event.key === "Escape") {
    escape(event);
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    search();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || off.get() || writes(event.target)) return;
  const shortcut = SHORTCUTS.find(({ single }) => single === event.key);
  if (!shortcut?.run || event.repeat) return;
  event.preventDefault();
  shortcut.run();
}

export function startKeys() {
  document.addEventListener("keydown", pressed);
  $("help-open").addEventListener("click", help);
  $("help-keys").append(...SHORTCUTS.flatMap(({ keys, about }) => [
    make("dt", {}, ...keys.flatMap((key) => [make("kbd", {}, key), " "])), make("dd", {}, about),
  ]));
  const box = $("single-keys");
  box.checked = !off.get();
  box.addEventListener("change", () => off.set(box.checked ? "" : "yes"));
}

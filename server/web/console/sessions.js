/** The reader's sessions: the newest first, found by what was said in them, deleted with one question. */

import { rest } from "./access.js";
import { desk } from "./desk.js";
import { $, icon, make } from "./dom.js";
import { matches } from "./match.js";
import { complain } from "./notice.js";
import { closeSessions } from "./panels.js";
import { ago, period, wholeTime } from "./times.js";

const PAGE = 20;
/** The most that the server gives at once. */
const MOST = 1_000;
/** Milliseconds without a key before a search goes out. */
const PAUSE = 180;

/** @type {any[]} */
let sessions = [];
let total = 0;
let shown = PAGE;
/** What the list was asked with. */
let query = "";
/** Answers may overtake each other; only the one to the newest question counts. */
let questions = 0;
/** @type {any} */
let timer = null;
/** Tells the other tabs of this browser. */
const others = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("parley.sessions");

/** Asks for the list again, with what stands in the search box. */
export async function listSessions() {
  clearTimeout(timer);
  const asked = $("search").value.trim();
  if (asked !== query) shown = PAGE;
  const question = (questions += 1);
  let answer;
  try {
    const parameters = new URLSearchParams({ limit: String(shown), ...(asked && { q: asked }) });
    answer = await rest(`/sessions?${parameters}`);
  } catch (error) {
    // The list as it was is better than none, and the state says that the server is away; a search has no answer.
    if (question === questions && asked !== query) complain("The search failed", error);
    return;
  }
  if (question !== questions) return;
  ({ sessions, total } = answer);
  query = asked;
  draw(answer.complete ?? true);
}

/** @param {boolean} complete whether all messages were searched */
function draw(complete) {
  const list = $("session-list");
  const focused = /** @type {HTMLElement|null} */ (document.activeElement)?.closest?.("[data-session-id]")?.getAttribute("data-session-id");
  /** @type {[string, any[]][]} */
  const groups = query ? [["", sessions]] : [...Map.groupBy(sessions, (one) => period(one.last_activity))];
  list.replaceChildren(...groups.map(([title, group]) => {
    const rows = make("ul", {}, ...group.map(row));
    return make("section", {}, ...(title ? [make("h2", {}, title)] : []), rows);
  }));
  if (!sessions.length) list.replaceChildren(make("p", { class: "none", "data-testid": "no-sessions" }, query ? `Nothing found for “${query}”.` : "No sessions yet."));
  if (query && !complete) list.append(make("p", { class: "none" }, "There is more to search than is searched at once: older messages were left out."));
  if (focused) list.querySelector(`[data-session-id="${CSS.escape(focused)}"]`)?.focus();
  const left = Math.min(total, MOST) - sessions.length;
  $("more-sessions").hidden = left <= 0;
  $("more-sessions").textContent = `Show ${Math.min(left, PAGE)} more of ${total - sessions.length}`;
  $("search-status").textContent = query ? `${total} ${total === 1 ? "session" : "sessions"} found` : "";
}

/** @param {any} session */
function row(session) {
  const { match } = session;
  const message = match?.message_id ? `&m=${match.message_id}` : "";
  const link = make("a", { href: `#s=${session.id}${message}`, "data-testid": "session", "data-session-id": session.id });
  link.append(make("span", { class: "name" }, ...marked(nameOf(session))));
  if (match?.excerpt) link.append(make("span", { class: "excerpt", "data-testid": "excerpt" }, ...marked(match.excerpt.replace(/\s+/g, " "))));
  if (match?.field === "id" || match?.field === "alias") link.append(make("span", { class: "excerpt" }, ...marked(match.field === "id" ? session.id : session.alias)));
  const count = session.message_count;
  link.append(make("span", { class: "when" },
    make("time", { datetime: session.last_activity, title: wholeTime(session.last_activity) }, ago(session.last_activity)),
    ` · ${count ? `${count} ${count === 1 ? "message" : "messages"}` : "empty"}`));
  if (session.id === desk.id) link.setAttribute("aria-current", "true");
  const button = make("button", {
    type: "button", class: "icon", title: "Delete", "aria-label": `Delete “${nameOf(session)}”`, "data-testid": "delete-session",
  }, icon("delete"));
  button.addEventListener("click", () => confirmDeletion(session.id, nameOf(session)));
  return make("li", {}, link, button);
}

/** @param {any} session */
const nameOf = (session) => session.title?.replace(/\s+/g, " ") || session.alias || "New session";

/** @param {string} id @returns {string} as far as the list knows it */
export function titleOf(id) {
  const known = sessions.find((one) => one.id === id);
  return known ? nameOf(known) : "another session";
}

/** @param {string} text @returns {(Node|string)[]} */
function marked(text) {
  return matches(text, query).map((part) => (part.match ? make("mark", {}, part.text) : part.text));
}

/** @param {string} id @param {string} name */
export function confirmDeletion(id, name) {
  const dialog = $("delete-dialog");
  $("delete-name").textContent = name;
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "delete") remove(id);
  };
  dialog.showModal();
}

/** @param {string} id */
async function remove(id) {
  try {
    await rest(`/sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    // Somebody else was faster: that is what was wanted.
    if (/** @type {any} */ (error).status !== 410) {
      complain("The session was not deleted", error);
      return;
    }
  }
  others?.postMessage("changed");
  const next = sessions.find((one) => one.id !== id);
  if (id === desk.id) location.hash = next ? `s=${next.id}` : "";
  listSessions();
}

// ------------------------------------------------------------------------------------------------ keys

/** @returns {HTMLElement[]} */
const links = () => [...$("session-list").querySelectorAll("a")];

/** Arrow keys go through what was found; Enter in the box takes the first. @param {KeyboardEvent} event */
function walk(event) {
  const all = links();
  const at = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  if (event.key === "ArrowDown") (all[at + 1] ?? all.at(-1))?.focus();
  else if (event.key === "ArrowUp") (at > 0 ? all[at - 1] : $("search")).focus();
  else if (event.key === "Home" && at >= 0) all[0].focus();
  else if (event.key === "End" && at >= 0) all.at(-1)?.focus();
  else if (event.key === "Delete" && at >= 0) /** @type {HTMLElement} */ (all[at].nextElementSibling).click();
  else if (event.key === "Enter" && at < 0 && $("search").value.trim()) takeFirst();
  else return;
  event.preventDefault();
}

async function takeFirst() {
  if ($("search").value.trim() !== query) await listSessions();
  links()[0]?.click();
}

/** Empties the search box. @returns {boolean} whether there was something in it */
export function clearSearch() {
  if (!$("search").value) return false;
  $("search").value = "";
  listSessions();
  return true;
}

/** Asks again because something happened; what somebody has just searched for stays as it was found. */
function refresh() {
  if (!query && !$("search").value.trim()) listSessions();
}

/** Marks the session on the desk. */
function markCurrent() {
  for (const link of links()) {
    if (link.dataset.sessionId === desk.id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

export function startSessions() {
  const search = $("search");
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(listSessions, PAUSE);
  });
  for (const place of [search, $("session-list")]) place.addEventListener("keydown", walk);
  $("more-sessions").addEventListener("click", async () => {
    const before = links().length;
    shown = Math.min(shown + PAGE, MOST);
    await listSessions();
    links()[before]?.focus();
  });
  $("delete-current").addEventListener("click", () => {
    $("about").hidePopover();
    confirmDeletion(desk.id ?? "", desk.title || "New session");
  });
  // Also for the session that is open already, which changes no address.
  $("session-list").addEventListener("click", (/** @type {any} */ { target }) => { if (target.closest("a")) closeSessions(); });
  desk.on("open", markCurrent);
  desk.on("state", ({ state }) => { if (state === "open") listSessions(); });
  desk.on("event", ({ event_type: type }) => {
    if (!["task_started", "task_completed", "session_updated"].includes(type) || desk.session?.state !== "open") return;
    refresh();
    others?.postMessage("changed");
  });
  others?.addEventListener("message", refresh);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}

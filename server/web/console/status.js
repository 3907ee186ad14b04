/** What the head of the page says: the session's title, its connection, and how to follow it from elsewhere. */

import { rest, signIn, signOut } from "./access.js";
import { desk } from "./desk.js";
import { $, copy } from "./dom.js";
import { complain, notify } from "./notice.js";

/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", sse: "Event stream" };
/** @type {Record<string, string>} */
const STATES = { connecting: "Connecting", open: "Connected", reconnecting: "Reconnecting", closed: "Closed" };

/** @param {string} id */
function describe(id) {
  $("session-id").textContent = id;
  const elsewhere = location.origin === "http://127.0.0.1:8080" ? "" : ` --url ${location.origin}`;
  $("command-tail").textContent = `parley tail ${id}${elsewhere}`;
  $("command-curl").textContent = `curl -N -H 'Accept: application/x-ndjson' '${location.origin}/sessions/${id}/events?after=0'`;
  notify("");
}

function entitle() {
  const title = desk.title || "New session";
  $("title").textContent = title;
  document.title = desk.title ? `${title.slice(0, 60)} · Parley` : "Parley";
  const { length } = desk.conversation.queue;
  $("queue-length").textContent = String(length);
  $("queue-pill").hidden = length === 0;
}

/** @param {any} change */
async function stateChanged({ state, transport, reason, error }) {
  const { id } = desk;
  $("state").dataset.state = state;
  $("state").title = reason ?? "";
  $("state-text").textContent = STATES[state];
  $("transport").textContent = TRANSPORTS[transport];
  $("transport").dataset.transport = transport;
  $("retry").hidden = state !== "reconnecting";
  if (state !== "closed") return;
  if (error.code === "unauthorized") {
    await signIn();
    if (desk.id === id) desk.open(/** @type {string} */ (id));
  } else if (error.code === "session_gone") {
    notify("This session was deleted.", { renew: true });
  } else if (error.code === "not_found") {
    notify("There is no such session.", { renew: true });
  } else {
    notify(`The connection was closed: ${error.message}`);
  }
}

/** The failure that was shown already. @type {any} */
let shown = null;

function failed() {
  const { failure } = desk.conversation;
  if (failure && failure !== shown) notify(`The turn failed: ${failure.message ?? failure.code}`);
  shown = failure;
}

/** Whose sessions these are, where the server knows people apart. */
async function identify() {
  const { user_id: user, kind, scope } = await rest("/auth/login");
  $("whose").hidden = kind === "local";
  $("user").textContent = scope === "read" ? `${user}, to read` : user;
}

export function startStatus() {
  desk.on("state", ({ state }) => { if (state === "open") identify().catch(() => { $("whose").hidden = true; }); });
  $("sign-out").addEventListener("click", () => signOut().catch((error) => complain("Not signed out", error)));
  desk.on("open", describe);
  desk.on("open", () => { shown = null; });
  desk.on("change", entitle);
  desk.on("change", failed);
  desk.on("state", stateChanged);
  $("retry").addEventListener("click", () => desk.session?.wake());
  addEventListener("online", () => desk.session?.wake());
  for (const button of document.querySelectorAll("[data-copies]")) {
    const source = $(/** @type {HTMLElement} */ (button).dataset.copies ?? "");
    button.addEventListener("click", () => copy(/** @type {HTMLElement} */ (button), source.textContent, source));
  }
}

/**
 * The page at `/`. It draws what parley.js knows and sends what the reader writes; it keeps no state of the
 * conversation itself. Everything that came from people or models is put in as text, never as markup.
 */

import { Conversation, connect, createSession, request } from "/parley.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** Shown in the log; a page that stays open for days must not grow for days. */
const LOG_LINES = 400;
const PAYLOAD_CHARACTERS = 160;

/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", sse: "Event stream" };
/** @type {Record<string, string>} */
const STATES = { connecting: "Connecting", open: "Connected", reconnecting: "Reconnecting", closed: "Closed" };

/** @type {import("./parley.js").Session|null} */
let session = null;
let conversation = new Conversation();
/** What was sent and not yet acknowledged, by a number of ours. @type {Map<number, string>} */
const sending = new Map();
let sends = 0;

// ------------------------------------------------------------------------------------- small things

/** @param {string} tag @param {Record<string, string>} [attributes] @param {(Node|string)[]} children @returns {any} */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Storage that may be forbidden, as in some private windows. @param {() => Storage} where @param {string} key */
function kept(where, key) {
  return {
    get() {
      try {
        return where().getItem(key);
      } catch {
        return null; // what cannot be kept is asked for again
      }
    },
    /** @param {string} value */
    set(value) {
      try {
        where().setItem(key, value);
      } catch {
        // The page works without; only the next visit starts anew.
      }
    },
  };
}

const token = kept(() => sessionStorage, "parley.token");
const last = kept(() => localStorage, "parley.last");

/** @param {string} text */
function notify(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = text === "";
}

/** @param {any} answer @param {string} name @returns {any[]} */
const listed = (answer, name) => (Array.isArray(answer) ? answer : answer?.[name] ?? []);

/** @param {string} timestamp */
function clockTime(timestamp) {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// -------------------------------------------------------------------------------------------- token

/** @type {Promise<void>|null} */
let asking = null;

/** One dialog, whoever needs it; settles when a token was entered. @param {boolean} refused */
function askForToken(refused) {
  asking ??= new Promise((resolve) => {
    const dialog = $("token-dialog");
    $("token-refused").hidden = !refused;
    $("token").value = "";
    dialog.oncancel = (/** @type {Event} */ event) => event.preventDefault();
    dialog.onclose = () => {
      token.set($("token").value.trim());
      $("token").value = "";
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

/**
 * A REST request, with the token if there is one; asks for one as often as the server wants another.
 * @param {(token: string|undefined) => Promise<any>} ask
 */
async function authorised(ask) {
  for (;;) {
    const used = token.get() || undefined;
    try {
      return await ask(used);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 401) throw error;
      if ((token.get() || undefined) === used) await askForToken(used !== undefined);
    }
  }
}

/** @param {string} path */
const rest = (path) => authorised((bearer) => request(path, { token: bearer }));

// --------------------------------------------------------------------------------------- the session

const inHash = () => new URLSearchParams(location.hash.slice(1)).get("s");

/** @param {string} id */
function open(id) {
  session?.close();
  last.set(id);
  sending.clear();
  notify("");
  drawn.clear();
  $("messages").replaceChildren();
  $("log").replaceChildren();
  $("session-id").textContent = id;
  const elsewhere = location.origin === "http://127.0.0.1:8080" ? "" : ` --url ${location.origin}`;
  $("command-tail").textContent = `parley tail ${id}${elsewhere}`;
  $("command-curl").textContent = `curl -N -H 'Accept: application/x-ndjson' '${location.origin}/sessions/${id}/events?after=0'`;
  document.title = `Parley · ${id.slice(0, 8)}`;

  const opened = connect({ session: id, after: 0, token: () => token.get() || undefined });
  session = opened;
  conversation = new Conversation().follow(opened);
  conversation.on("change", () => redraw());
  opened.on("*", (event) => {
    log(event);
    announce(event);
    if (event.event_type === "task_completed" && opened.state === "open") listSessions();
  });
  opened.on("state", (change) => stateChanged(opened, change));
  stateChanged(opened, { state: opened.state, transport: opened.transport, reason: null, error: null });
  redraw();
}

/** @param {import("./parley.js").Session} of @param {any} change */
async function stateChanged(of, { state, transport, reason, error }) {
  if (of !== session) return;
  $("state").dataset.state = state;
  $("state").title = reason ?? "";
  $("state-text").textContent = STATES[state];
  $("transport").textContent = TRANSPORTS[transport];
  $("transport").dataset.transport = transport;
  $("retry").hidden = state !== "reconnecting";
  $("composer").disabled = $("send").disabled = state === "closed";
  if (state === "open") listSessions();
  if (state !== "closed") return;
  if (error.code === "unauthorized") {
    await askForToken(token.get() !== null);
    if (of === session) open(of.sessionId);
  } else if (["not_found", "session_gone"].includes(error.code)) {
    notify("There is no such session (any more). Start a new one.");
  } else {
    notify(`The connection was closed: ${error.message}`);
  }
}

async function startNew() {
  try {
    const made = await authorised((bearer) => createSession({ token: bearer }));
    location.hash = `s=${made.session_id}`;
    $("composer").focus();
  } catch (error) {
    notify(`No session could be made: ${/** @type {Error} */ (error).message}`);
  }
}

/** Opens what the address names, else the session of the last visit, else a new one. */
async function arrive() {
  const id = inHash();
  if (id) {
    if (id !== session?.sessionId) open(id);
    return;
  }
  const former = last.get();
  const found = former ? await rest(`/sessions/${encodeURIComponent(former)}`).catch(() => null) : null;
  if (found) location.replace(`#s=${found.id}`);
  else await startNew();
}

async function listSessions() {
  let sessions;
  try {
    sessions = listed(await rest("/sessions?limit=20"), "sessions");
  } catch {
    return; // the list as it was is better than none; the state shows that the server is away
  }
  const entries = sessions.map((one) => {
    const attributes = { href: `#s=${one.id}`, "data-testid": "session", "data-session-id": one.id };
    const link = make("a", attributes, make("span", { class: "name" }, one.title || one.alias || one.id.slice(-12)));
    const when = [clockTime(one.last_activity), `${one.message_count ?? 0} messages`].filter(Boolean).join(" · ");
    link.append(make("span", { class: "when" }, when));
    if (one.id === session?.sessionId) link.setAttribute("aria-current", "true");
    return make("li", {}, link);
  });
  $("session-list").replaceChildren(...(entries.length ? entries : [make("li", { class: "none" }, "None yet")]));
}

async function listAgents() {
  try {
    const agents = listed(await rest("/agents"), "agents");
    $("agent").replaceChildren(...agents.map((agent) => {
      return make("option", { value: agent.type, title: agent.description ?? "" }, agent.name ?? agent.type);
    }));
    redraw();
  } catch (error) {
    notify(`The agents could not be listed: ${/** @type {Error} */ (error).message}`);
  }
}

// ------------------------------------------------------------------------------------------- drawing

/** What is on the page, by message id. @type {Map<string, {node: HTMLElement, message: any, stamp: string}>} */
const drawn = new Map();
let drawing = false;

/** Draws soon, once, whatever number of events came; also in a tab that is not looked at. */
function redraw() {
  if (drawing) return;
  drawing = true;
  const soon = document.hidden ? (/** @type {() => void} */ fn) => setTimeout(fn, 100) : requestAnimationFrame;
  soon(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const scroll = $("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  drawMessages();
  drawQueue();
  const { turn, failure, agent, messages, queue } = conversation;
  $("empty").hidden = messages.length + queue.length + sending.size > 0 || session?.state !== "open";
  $("stop").hidden = $("stop-key").hidden = turn === null;
  $("send-keys").hidden = turn !== null;
  $("stop").disabled = turn?.cancelling ?? false;
  $("stop").textContent = turn?.cancelling ? "Stopping…" : "Stop";
  $("queue-length").textContent = String(queue.length);
  $("queue-pill").hidden = queue.length === 0;
  $("cursor").textContent = session?.cursor ?? "–";
  if (agent && document.activeElement !== $("agent")) $("agent").value = agent;
  if (failure && failure !== draw.failure) notify(`The turn failed: ${failure.message ?? failure.code}`);
  draw.failure = failure;
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}
/** The failure that was shown already. @type {any} */
draw.failure = null;

function drawMessages() {
  const list = $("messages");
  const shown = new Set(conversation.messages.map((message) => message.message_id));
  for (const [id, { node }] of drawn) {
    if (!shown.has(id)) {
      node.remove();
      drawn.delete(id);
    }
  }
  let place = list.firstElementChild;
  for (const message of conversation.messages) {
    const entry = drawn.get(message.message_id) ?? { node: newMessage(message), message: null, stamp: "" };
    drawn.set(message.message_id, entry);
    fill(entry, message);
    if (entry.node === place) place = place.nextElementSibling;
    else list.insertBefore(entry.node, place);
  }
}

/** @param {any} message */
function newMessage(message) {
  const node = make("li", {
    class: "message", "data-testid": "message", "data-role": message.role, "data-message-id": message.message_id,
  });
  node.append(make("div", { class: "meta" }));
  return node;
}

/** @param {any} entry @param {any} message */
function fill(entry, message) {
  const calls = message.tool_calls.map((/** @type {any} */ call) => ({ ...call, ...callState(call.call_id) }));
  const stamp = JSON.stringify([message.done, message.content.length, message.reasoning.length, calls]);
  if (entry.message === message && entry.stamp === stamp) return;
  entry.message = message;
  entry.stamp = stamp;
  const { node } = entry;
  node.dataset.done = String(message.done);
  const meta = [make("span", { class: "who" }, speaker(message)), make("time", { datetime: message.timestamp }, clockTime(message.timestamp))];
  if (["cancelled", "error", "interrupted", "length"].includes(message.finish_reason)) {
    meta.push(make("span", { class: "tag" }, message.finish_reason));
  }
  node.querySelector(".meta").replaceChildren(...meta);
  fold(node, "reasoning", "Reasoning", message.reasoning);
  if (message.role === "tool") fold(node, "tool-text", "Result", message.content);
  else write(node, message.content);
  node.querySelector(".calls")?.remove();
  if (calls.length) node.append(make("div", { class: "calls" }, ...calls.map(callNode)));
}

/** @param {any} message */
function speaker({ role, agent_name: agent, agent_type: type, name }) {
  if (role === "user") return "You";
  if (role === "tool") return name ?? "Tool";
  return agent ?? type ?? (role === "assistant" ? "Assistant" : "System");
}

/** Appends to the text that is there when it can, so that a selection in it survives. @param {any} node @param {string} text */
function write(node, text) {
  const kind = node.closest(".reasoning") ? "text" : "text content";
  let target = node.querySelector(":scope > .text");
  if (!target) {
    target = make("div", { class: kind, "data-testid": kind === "text" ? "reasoning-text" : "message-text", dir: "auto" }, document.createTextNode(""));
    node.append(target);
  }
  const old = target.firstChild.data;
  if (text.startsWith(old)) target.firstChild.appendData(text.slice(old.length));
  else target.firstChild.data = text;
}

/** @param {any} node @param {string} kind @param {string} title @param {string} text */
function fold(node, kind, title, text) {
  let details = node.querySelector(`:scope > .${kind}`);
  if (!text) return details?.remove();
  if (!details) {
    details = make("details", { class: kind }, make("summary", {}, title));
    node.querySelector(".meta").after(details);
  }
  return write(details, text);
}

/** @param {string} id */
function callState(id) {
  const call = conversation.calls.get(id);
  if (!call) return { state: "asked" };
  return { name: call.name, state: call.done ? (call.error ? "failed" : "done") : "running", error: call.error };
}

/** @param {any} call */
function callNode({ name, arguments: text, state, error }) {
  const attributes = { class: "call", "data-testid": "call", "data-state": state, title: error ?? "" };
  const parts = [make("code", { class: "call-name" }, name ?? "tool"), make("code", {}, text), make("span", { class: "call-state" }, state)];
  return make("div", attributes, ...parts);
}

function drawQueue() {
  const waiting = conversation.queue.map((one) => ["queued", one.content]);
  const entries = [...waiting, ...[...sending.values()].map((text) => ["sending…", text])].map(([state, text]) => {
    const meta = make("div", { class: "meta" }, state);
    return make("li", { class: "message", "data-testid": "waiting", "data-role": "user" }, meta, make("div", { class: "text" }, text));
  });
  if (entries.length || $("queue").childElementCount) $("queue").replaceChildren(...entries);
}

/** For those who listen instead of looking: whole messages, never a word at a time. @param {any} event */
function announce({ event_type: type, payload }) {
  if (session?.state !== "open") return; // a replay is no news
  if (type === "task_started") $("announcer").textContent = `${payload.agent_name ?? "The agent"} is answering.`;
  else if (type === "message_created" && payload.role === "assistant") $("announcer").textContent = payload.content;
}

// ----------------------------------------------------------------------------------------------- log

/** @param {any} event */
function log({ event_type: type, seq, payload }) {
  const list = $("log");
  const latest = list.lastElementChild;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const text = JSON.stringify(payload ?? {});
  const short = text.length > PAYLOAD_CHARACTERS ? `${text.slice(0, PAYLOAD_CHARACTERS)}…` : text;
  if (seq === undefined && latest?.dataset.type === type) {
    const count = Number(latest.dataset.count) + 1;
    latest.dataset.count = String(count);
    latest.querySelector(".type").textContent = `${type} ×${count}`;
    latest.querySelector(".payload").textContent = short;
  } else {
    const attributes = { "data-testid": "log-line", "data-type": type, "data-count": "1", "data-kind": seq === undefined ? "passing" : "durable" };
    const parts = [make("span", { class: "seq" }, seq === undefined ? "" : String(seq)), make("span", { class: "type" }, type)];
    list.append(make("li", attributes, ...parts, make("span", { class: "payload" }, short)));
    if (list.childElementCount > LOG_LINES) list.firstElementChild.remove();
  }
  if (atEnd && !$("log-panel").hidden) list.scrollTop = list.scrollHeight;
}

/** @param {boolean} shown */
function showLog(shown) {
  $("log-panel").hidden = !shown;
  $("log-toggle").setAttribute("aria-expanded", String(shown));
  if (shown) $("log").scrollTop = $("log").scrollHeight;
}

// ------------------------------------------------------------------------------------------- the reader

async function send() {
  const text = $("composer").value;
  if (!text.trim() || !session || session.state === "closed") return;
  const to = session;
  const key = (sends += 1);
  $("composer").value = "";
  notify("");
  sending.set(key, text);
  redraw();
  $("scroll").scrollTop = $("scroll").scrollHeight;
  try {
    await to.message(text);
  } catch (error) {
    if (to === session) {
      notify(`Not sent: ${/** @type {Error} */ (error).message}`);
      if (!$("composer").value) $("composer").value = text;
    }
  }
  sending.delete(key);
  redraw();
}

async function stop() {
  const turn = conversation.turn;
  if (!session || turn === null || turn.cancelling) return;
  turn.cancelling = true;
  redraw();
  try {
    await session.cancel(turn.turn_id);
  } catch (error) {
    turn.cancelling = false;
    // It ended by itself before the request came: that is what was wanted.
    if (/** @type {any} */ (error).code !== "no_active_turn") notify(`Not stopped: ${/** @type {Error} */ (error).message}`);
    redraw();
  }
}

/** @param {HTMLElement} button */
async function copy(button) {
  const source = $(button.dataset.copies ?? "");
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // No clipboard without a secure origin: select it, so that the reader's own keys copy it.
    getSelection()?.selectAllChildren(source);
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function listen() {
  $("composer-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    send();
  });
  $("composer").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    // While an input method composes, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing || $("token-dialog").open) return;
    $("sessions-panel").classList.remove("shown");
    stop();
  });
  $("stop").addEventListener("click", stop);
  $("retry").addEventListener("click", () => session?.wake());
  $("new-session").addEventListener("click", startNew);
  $("notice-close").addEventListener("click", () => notify(""));
  $("log-toggle").addEventListener("click", () => showLog($("log-panel").hidden));
  $("log-close").addEventListener("click", () => showLog(false));
  $("log-clear").addEventListener("click", () => $("log").replaceChildren());
  $("sessions-toggle").addEventListener("click", () => {
    const shown = $("sessions-panel").classList.toggle("shown");
    $("sessions-toggle").setAttribute("aria-expanded", String(shown));
  });
  $("agent").addEventListener("change", async () => {
    try {
      await session?.switchAgent($("agent").value);
    } catch (error) {
      notify(`The agent was not changed: ${/** @type {Error} */ (error).message}`);
      $("agent").value = conversation.agent ?? "";
    }
  });
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", () => copy(/** @type {HTMLElement} */ (button)));
  }
  addEventListener("hashchange", () => {
    $("sessions-panel").classList.remove("shown");
    arrive();
  });
  addEventListener("online", () => session?.wake());
}

listen();
listAgents();
await arrive();

/** What waits for the reader's decision in all sessions, and the rules that were made of decisions. */

import { rest } from "./access.js";
import { brief } from "./describe.js";
import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { complain } from "./notice.js";
import { titleOf } from "./sessions.js";
import { countdown } from "./ticking.js";
import { ago, wholeTime } from "./times.js";

/** Milliseconds between two looks at the other sessions, while the page is looked at. */
const PAUSE = 15_000;
/** After the last event that is about decisions. */
const SOON = 250;
const ABOUT_DECISIONS = new Set(["approval_required", "approval_resolved"]);

/** @type {any[]} */
let open = [];
let more = false;
let drawn = "";
/** @type {any} */
let timer = null;
let asking = false;

/** The page's own session says more, and sooner, than a list that was asked for a moment ago. */
function waiting() {
  const here = desk.conversation.approvals.map((call) => ({
    session_id: desk.id, call_id: call.call_id, tool_name: call.name, arguments: call.arguments,
    details: { expires_at: call.approval?.expires_at ?? null }, created_at: call.approval?.asked_at,
  }));
  return [...here, ...open.filter((one) => one.session_id !== desk.id)];
}

async function look() {
  clearTimeout(timer);
  if (!document.hidden && !asking && desk.session?.state === "open") {
    asking = true;
    try {
      const answer = await rest("/approvals?limit=100");
      open = answer.approvals;
      more = Boolean(answer.next);
    } catch {
      // The list as it was is better than none; that the server is away is said elsewhere.
    }
    asking = false;
    draw();
  }
  timer = setTimeout(look, PAUSE);
}

function lookSoon() {
  clearTimeout(timer);
  timer = setTimeout(look, SOON);
}

function draw() {
  const all = waiting();
  const count = `${all.length}${more ? "+" : ""}`;
  $("decisions-badge").hidden = all.length === 0;
  $("decisions-badge").textContent = count;
  $("decisions-toggle").setAttribute("aria-label", all.length ? `Decisions, ${count} open` : "Decisions");
  const stamp = JSON.stringify(all);
  if (stamp === drawn || $("decisions-panel").hidden || $("inspector").hidden) return;
  drawn = stamp;
  const focused = /** @type {HTMLElement|null} */ (document.activeElement)?.dataset?.key;
  $("inbox").replaceChildren(...all.map(entry));
  $("inbox-none").hidden = all.length > 0;
  if (focused) $("inbox").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** @param {any} one */
function entry(one) {
  const { session_id: session, call_id: call, tool_name: name, created_at: at } = one;
  const title = session === desk.id ? "this session" : titleOf(session);
  const link = make("a", { href: `#s=${session}&c=${call}`, "data-key": call },
    make("span", { class: "inbox-call" }, make("code", { class: "call-name" }, name), " ", make("code", { class: "call-brief" }, brief(one.arguments))),
    make("span", { class: "inbox-where" }, title, ...(at ? [" · ", make("time", { datetime: at, title: wholeTime(at) }, ago(at))] : [])));
  return make("li", { "data-testid": "inbox-entry", "data-call-id": call }, link, countdown(one.details.expires_at));
}

// -------------------------------------------------------------------------------------------------- rules

async function listRules() {
  try {
    const { rules, policies } = await rest("/policies");
    $("rules").replaceChildren(...rules.map(rule));
    $("rules-none").hidden = rules.length > 0;
    $("policies").replaceChildren(...policies.map(policy));
    $("policies-title").hidden = policies.length === 0;
  } catch (error) {
    complain("The rules could not be listed", error);
  }
}

/** @param {any} one */
function rule(one) {
  const { rule_id: id, effect, tool, scope, session_id: session, created_at: at } = one;
  const where = scope === "user" ? "in all sessions" : session === desk.id ? "in this session" : "in one session";
  const text = `${effect === "allow" ? "Always allow" : "Never allow"} ${tool} ${where}`;
  const button = make("button", { type: "button", class: "ghost small", "aria-label": `Revoke: ${text}`, "data-testid": "revoke" }, "Revoke");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await rest(`/policies/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (error) {
      complain("The rule was not revoked", error);
    }
    await listRules();
    ($("rules").querySelector("button") ?? $("tab-decisions")).focus();
  });
  return make("li", { class: "rule", "data-testid": "rule", "data-effect": effect },
    make("div", {}, make("span", {}, effect === "allow" ? "Always allow " : "Never allow ", make("code", {}, tool)),
      make("span", { class: "hint" }, where, ...(at ? [", ", make("time", { datetime: at, title: wholeTime(at) }, ago(at))] : [])),
      ...conditions(one)), button);
}

/** @param {any} one @returns {Node[]} */
function conditions({ arguments: patterns }) {
  const chips = Object.entries(patterns).map(([name, glob]) => make("span", { class: "chip" }, `${name}: ${glob}`));
  return chips.length ? [make("div", { class: "chips" }, ...chips)] : [];
}

/** @type {Record<string, string>} */
const EFFECTS = { allow: "Allows", ask: "Asks about", deny: "Forbids" };

/** One of the server's own: nothing to be done about it here. @param {any} one */
function policy(one) {
  const { effect, tool, agent, reason } = one;
  return make("li", { "data-testid": "policy" }, `${EFFECTS[effect] ?? effect} `, make("code", {}, tool),
    ...(agent ? [make("span", { class: "hint" }, ` of ${agent}`)] : []), ...(reason ? [make("div", { class: "hint" }, reason)] : []), ...conditions(one));
}

/** The panel came into sight. */
export function decisionsShown() {
  drawn = "";
  draw();
  look();
  listRules();
}

export function startInbox() {
  desk.on("open", draw);
  desk.on("change", draw);
  desk.on("state", ({ state }) => { if (state === "open") lookSoon(); });
  desk.on("event", ({ event_type: type, payload }) => {
    if (desk.session?.state !== "open" || !ABOUT_DECISIONS.has(type)) return;
    lookSoon();
    // A decision may have made a rule.
    if (type === "approval_resolved" && payload.cause === "person" && !$("decisions-panel").hidden) listRules();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) lookSoon(); });
  timer = setTimeout(look, PAUSE);
}

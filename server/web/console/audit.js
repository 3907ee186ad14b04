/** Who did what: the audit of decisions, and figures of what agents and tools did lately. */

import { rest } from "./access.js";
import { clientName, costText, duration, pretty } from "./describe.js";
import { desk } from "./desk.js";
import { diff } from "./diff.js";
import { $, make } from "./dom.js";
import { here } from "./here.js";
import { complain } from "./notice.js";
import { codePart, diffPart } from "./parts.js";
import { chart } from "./plot.js";
import { ago, wholeTime } from "./times.js";

const PAGE = 50;
/** @type {any[]} */
let entries = [];
/** @type {string|null} */
let next = null;
let questions = 0;

const ofSession = () => $("audit-scope").value === "session";

/** @param {boolean} older whether to go on where the list ends */
async function list(older = false) {
  const question = (questions += 1);
  const { id } = desk;
  const filters = { limit: String(PAGE), ...(ofSession() && id && { session_id: id }), ...(older && next && { after: next }) };
  try {
    const answer = await rest(`/events/audit-log?${new URLSearchParams(filters)}`);
    if (question !== questions) return;
    entries = older ? [...entries, ...answer.audit_log] : answer.audit_log;
    next = answer.next ?? null;
    draw();
  } catch (error) {
    if (question === questions) complain("The audit could not be read", error);
  }
}

function draw() {
  $("audit").replaceChildren(...entries.map(entry));
  $("audit-none").hidden = entries.length > 0;
  $("audit-more").hidden = next === null;
}

/** @type {Record<string, string>} */
const WORDS = {
  approved: "approved", approve: "approved", edited: "changed", edit: "changed", rejected: "rejected", reject: "rejected",
  responded: "answered", respond: "answered", expired: "let expire", withdrawn: "withdrawn",
};

/** @param {any} one */
function entry(one) {
  const { event_type: type, user_id: user, client_id: client, transport, tool, decision, cause, timestamp, session_id: session } = one;
  const who = cause === "rule" ? "A rule" : cause === "expiry" ? "Time" : user ?? "Somebody";
  const what = decision ? WORDS[decision] ?? decision : type.replaceAll("_", " ");
  const head = make("summary", {}, make("span", {}, `${who} ${what} `, ...(tool ? [make("code", {}, tool)] : [])),
    make("time", { class: "hint", datetime: timestamp, title: wholeTime(timestamp) }, ago(timestamp)));
  const details = make("details", {}, head);
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const from = [client ? `from ${clientName(client, here())}` : null, transport ? `over ${transport}` : null, one.rule ? `by the rule ${one.rule}` : null].filter(Boolean).join(", ");
    const parts = [make("p", { class: "hint" }, from, session && session !== desk.id ? make("a", { href: `#s=${session}` }, " open its session") : "")];
    if (one.feedback) parts.push(make("p", { class: "hint" }, "Said: ", make("q", { dir: "auto" }, one.feedback)));
    if (one.arguments !== null && one.arguments !== undefined) parts.push(codePart("Asked for", pretty(one.arguments)));
    const changed = one.executed !== null && one.executed !== undefined && pretty(one.executed) !== pretty(one.arguments);
    if (changed) parts.push(diffPart("What ran instead", diff(pretty(one.arguments), pretty(one.executed))));
    details.append(...parts);
  });
  return make("li", { "data-testid": "audit-entry", "data-type": type }, details);
}

// ------------------------------------------------------------------------------------------------ figures

async function figures() {
  try {
    const [{ metrics, computed }, usage] = await Promise.all([rest("/events/metrics"), rest("/usage?by=day")]);
    drawFigures(metrics, computed);
    drawDays(usage);
  } catch (error) {
    complain("The figures could not be read", error);
  }
}

/** @param {any} metrics @param {Record<string, number>} computed */
function drawFigures(metrics, computed) {
  const rows = (/** @type {string} */ kind, /** @type {Record<string, any>} */ group) => Object.entries(group).map(([name, one]) => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, kind), make("td", {}, String(one.count)), make("td", {}, one.failure_count ? String(one.failure_count) : "–"),
    make("td", {}, one.count ? duration(one.total_duration_ms / one.count) : "–")));
  const { agent_processing: agents, tool_executions: tools, hitl_decisions: decisions, errors } = metrics;
  const all = [...rows("agent", agents), ...rows("tool", tools)];
  const head = make("thead", {}, make("tr", {}, ...["", "", "runs", "failed", "on average"].map((text) => make("th", { scope: "col" }, text))));
  $("metrics").replaceChildren(...(all.length ? [make("table", { "data-testid": "metrics-table" }, head, make("tbody", {}, ...all))] : []));
  const sentences = [];
  const decided = Object.entries(decisions).map(([name, number]) => `${number} ${name}`);
  if (decided.length) sentences.push(`Decisions: ${decided.join(", ")}.`);
  if (typeof computed.tool_executions_success_rate === "number") sentences.push(`${Math.round(computed.tool_executions_success_rate * 100)} % of tool calls succeeded.`);
  const failed = Object.entries(errors).map(([code, number]) => `${number} × ${code}`);
  if (failed.length) sentences.push(`Errors: ${failed.join(", ")}.`);
  $("metrics-text").textContent = sentences.join(" ") || (all.length ? "" : "Nothing has been done yet.");
}

/** @param {any} report what was used each day */
function drawDays(report) {
  const days = report.groups.filter((/** @type {any} */ day) => day.key).sort((/** @type {any} */ a, /** @type {any} */ b) => (a.key < b.key ? -1 : 1)).slice(-30);
  const tokens = (/** @type {any} */ day) => day.total_tokens ?? day.prompt_tokens + day.completion_tokens;
  const said = (/** @type {any} */ day) => `${day.key}: ${tokens(day).toLocaleString()} tokens, ${day.requests} requests${typeof day.cost === "number" ? `, cost ${costText(day.cost)}` : ""}`;
  $("plot").replaceChildren(...(days.length ? [chart("Tokens a day", days.map((/** @type {any} */ day) => ({ label: day.key, value: tokens(day), about: said(day) })))] : []));
}

/** The panel came into sight. */
export function auditShown() {
  list();
  figures();
}

export function startAudit() {
  $("audit-scope").addEventListener("change", () => list());
  $("audit-more").addEventListener("click", () => list(true));
  let timer = 0;
  const fresh = () => {
    if ($("audit-panel").hidden || $("inspector").hidden) return;
    clearTimeout(timer);
    timer = /** @type {any} */ (setTimeout(auditShown, 400));
  };
  desk.on("open", fresh);
  desk.on("event", ({ event_type: type }) => {
    if (desk.session?.state === "open" && (type === "approval_resolved" || type === "task_completed")) fresh();
  });
}

/** About the session: who is here and what each can run, what it took so far, and who acted when. */

import { costText, duration, usageText } from "./describe.js";
import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { here } from "./here.js";
import { timeOfDay, wholeTime } from "./times.js";

let stamp = "";

function draw() {
  const { length } = desk.conversation.clients;
  $("people-count").hidden = length < 2;
  $("people-count").textContent = String(length);
  $("session-toggle").setAttribute("aria-label", length < 2 ? "People and usage" : `People and usage, ${length} are here`);
  if ($("session-panel").hidden || $("inspector").hidden) return;
  const { clients, switches, turns, calls } = desk.conversation;
  const now = JSON.stringify([clients, switches.length, [...turns.values()], calls.size]);
  if (now === stamp) return;
  stamp = now;
  drawPeople(clients);
  drawUsage();
  $("switches").replaceChildren(...switches.map(switched).reverse());
  $("switches-none").hidden = switches.length > 0;
}

/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", sse: "event stream", ndjson: "NDJSON" };

/** @param {any[]} clients */
function drawPeople(clients) {
  const { me } = here();
  const mine = (/** @type {any} */ client) => client.client_id === me;
  if (me && !clients.some(mine)) clients = [{ client_id: me, transport: desk.session?.transport }, ...clients];
  $("people").replaceChildren(...[...clients].sort((a, b) => Number(mine(b)) - Number(mine(a))).map((client) => {
    const { client_id: id, role = "owner", transport, tools = [] } = client;
    const name = make("span", { class: "person-name" }, make("code", { title: id }, id), ...(mine(client) ? [make("span", { class: "tag now" }, "this tab")] : []));
    const about = make("span", { class: "hint" }, [role, TRANSPORTS[transport] ?? transport].filter(Boolean).join(" · "));
    const chips = tools.length ? [make("span", { class: "chips", "aria-label": "Tools that it runs" }, ...tools.map((/** @type {string} */ tool) => make("span", { class: "chip" }, tool)))] : [];
    return make("li", { class: "person", "data-testid": "person", "data-client-id": id }, name, about, ...chips);
  }));
}

function drawUsage() {
  const { turns, usage, calls } = desk.conversation;
  const done = [...turns.values()].filter((turn) => turn.status !== null);
  const took = done.filter((turn) => !turn.parent_call_id).reduce((sum, turn) => sum + (turn.duration_ms ?? 0), 0);
  /** @type {[string, string][]} */
  const rows = [
    ["Turns", String(done.length)], ["Tool calls", String(calls.size)], ["Time", took ? duration(took) : "–"],
    ["Tokens in", usage.prompt_tokens.toLocaleString()], ["Tokens out", usage.completion_tokens.toLocaleString()],
    ["Cost", usage.cost === null ? "not known" : costText(usage.cost)],
  ];
  $("usage").replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const items = done.slice(-20).reverse().map((turn) => {
    const label = `${turn.agent_name ?? turn.agent_type ?? "Agent"}${turn.parent_call_id ? ", asked by another" : ""}${turn.status === "completed" ? "" : `, ${turn.status}`}`;
    return make("li", { "data-testid": "turn" }, make("span", {}, label), make("span", { class: "hint" }, usageText(turn.usage, turn.duration_ms)));
  });
  $("turns").replaceChildren(...items);
}

/** @param {any} each */
function switched({ from_agent: from, to_agent: to, reason, cause, confidence, timestamp }) {
  const why = [cause === "agent" ? "handed over by the agent" : "chosen by a person", reason, typeof confidence === "number" ? `${Math.round(confidence * 100)} % sure` : null];
  return make("li", {}, make("span", {}, `${from} → ${to} `, make("time", { datetime: timestamp, title: wholeTime(timestamp), class: "hint" }, timeOfDay(timestamp))),
    make("span", { class: "hint" }, why.filter(Boolean).join(" · ")));
}

/** The panel came into sight. */
export function sessionShown() {
  stamp = "";
  draw();
}

export function startAbout() {
  desk.on("change", draw);
}

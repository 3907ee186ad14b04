/** Who can answer: the choice beside the message box, and the panel that says what each of them is for. */

import { rest } from "./access.js";
import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { complain } from "./notice.js";

/** @type {any[]} */
let agents = [];
/** What the cards were drawn from. */
let drawn = "";

/** @param {string} type */
async function choose(type) {
  if (type === desk.conversation.agent) return;
  try {
    await desk.session?.switchAgent(type);
  } catch (error) {
    complain("The agent was not changed", error);
    $("agent").value = desk.conversation.agent ?? "";
  }
}

function draw() {
  const { agent } = desk.conversation;
  if (agent && document.activeElement !== $("agent")) $("agent").value = agent;
  const stamp = `${agent} ${agents.length}`;
  if (stamp === drawn) return;
  drawn = stamp;
  const focused = /** @type {HTMLElement|null} */ (document.activeElement)?.dataset.agent;
  $("agents").replaceChildren(...agents.map(card));
  // Whoever switched by keyboard is still there.
  if (focused) $("agents").querySelector(`[data-agent="${CSS.escape(focused)}"]`)?.focus();
}

/** @param {any} agent */
function card(agent) {
  const current = agent.type === desk.conversation.agent;
  const tools = agent.allowed_tools ?? [];
  const chips = tools.includes("*") ? ["all tools"] : tools.length ? [...tools] : ["no tools"];
  if (agent.has_file_restrictions) chips.push("certain files only");
  const button = make("button", {
    type: "button", class: "agent-card", "data-testid": "agent-card", "data-agent": agent.type, "aria-pressed": String(current),
  },
  make("span", { class: "agent-name" }, agent.name ?? agent.type, ...(current ? [make("span", { class: "tag now" }, "answers here")] : [])),
  make("span", { class: "agent-about" }, agent.description ?? ""),
  make("span", { class: "chips" }, ...chips.map((/** @type {string} */ chip) => make("span", { class: "chip" }, chip))));
  button.addEventListener("click", () => choose(agent.type));
  return make("li", {}, button);
}

/** The panel came into sight: so does who answers. */
export function agentsShown() {
  $("agents").querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest" });
}

async function list() {
  try {
    agents = (await rest("/agents"))?.agents ?? [];
  } catch (error) {
    complain("The agents could not be listed", error);
    return;
  }
  $("agent").replaceChildren(...agents.map((agent) => {
    return make("option", { value: agent.type, title: agent.description ?? "" }, agent.name ?? agent.type);
  }));
  draw();
}

export function startAgents() {
  $("agent").addEventListener("change", () => choose($("agent").value));
  desk.on("change", draw);
  // A server that is back may be another version of itself.
  desk.on("state", ({ state }) => { if (state === "open" && !agents.length) list(); });
  list();
}

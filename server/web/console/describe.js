/** Calls, decisions and what they took, as people say it. */

/** @typedef {import("../parley/calls.js").ToolCall} ToolCall */
/** @typedef {import("../parley/calls.js").Resolution} Resolution */

/** Of a call's arguments, in its one line. */
const BRIEF = 200;
/** What says most about a call, where there is such an argument. */
const TELLING = ["path", "source", "command", "query", "pattern", "expression", "url", "agent_type", "name"];

/** @param {any} value @returns {string} */
export const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? null));

/** JSON with line breaks; anything else as it is. @param {any} value */
export function pretty(value) {
  if (typeof value === "object" && value !== null) return JSON.stringify(value, null, 2);
  const text = asText(value ?? "");
  try {
    const inner = JSON.parse(text);
    return typeof inner === "object" && inner !== null ? JSON.stringify(inner, null, 2) : text;
  } catch {
    return text;
  }
}

/** Arguments in one line. @param {any} value @returns {string} */
export function brief(value) {
  const named = typeof value === "object" && value !== null ? TELLING.find((name) => typeof value[name] === "string" && value[name]) : undefined;
  const text = named ? value[named] : value === undefined ? "" : asText(value);
  return (text === "{}" ? "" : text).replace(/\s+/g, " ").slice(0, BRIEF);
}

/**
 * Who a client is to the reader.
 * @param {string|null} id
 * @param {{me: string|null, clients: any[]}} here
 */
export function clientName(id, { me, clients }) {
  if (id === null) return "the server";
  if (id === me) return "this tab";
  const name = id.length > 24 ? `${id.slice(0, 8)}…` : id;
  return clients.some((client) => client.client_id === id) ? name : `${name} (not here)`;
}

/** @param {ToolCall} call @param {{me: string|null, clients: any[]}} here */
export function stateText(call, here) {
  switch (call.state) {
    case "approval": return "Waits for a decision";
    case "waiting": return "Waits for a client";
    case "ready": return "Will run";
    case "running":
      if (call.child_turn) return "Under way";
      return call.client_id === null ? "Running" : `Running at ${clientName(call.client_id, here)}`;
    case "done": return call.approval?.resolved?.decision === "respond" ? "Answered" : "Done";
    case "failed": return "Failed";
    case "rejected": return "Rejected";
    case "expired": return "Expired";
    case "cancelled": return "Cancelled";
    default: return "Asked for";
  }
}

/** @type {Record<string, string>} */
const DECIDED = { approve: "Approved", edit: "Approved with changes", reject: "Rejected", respond: "Answered" };

/** Who decided, from where, by which rule. @param {Resolution} resolution @param {{me: string|null, clients: any[]}} here */
export function decisionText({ decision, cause, user, client_id: client, rule }, here) {
  if (cause === "expiry") return "Nobody decided in time, so it was rejected";
  if (cause === "cancel") return "Its turn ended before anybody decided";
  const what = DECIDED[decision] ?? decision;
  if (cause === "rule") return `${what} by a rule${rule ? `: ${rule}` : ""}`;
  const who = user ? ` by ${user}` : "";
  return `${what}${who}${client ? `, from ${clientName(client, here)}` : ""}`;
}

/**
 * What a file held before a call that writes it, as far as the conversation knows: what was written into it last, or
 * read from it whole.
 * @param {Iterable<ToolCall>} calls in order
 * @param {ToolCall} writing
 * @returns {string|null}
 */
export function contentBefore(calls, writing) {
  const { path } = argumentsOf(writing);
  let content = null;
  for (const call of calls) {
    if (call.call_id === writing.call_id) break;
    const given = argumentsOf(call);
    if (call.state !== "done" || given.path !== path) continue;
    if (call.name === "write_file" && typeof given.content === "string") content = given.content;
    else if (call.name === "read_file" && given.start_line === undefined && given.end_line === undefined) content = contentIn(call.result) ?? content;
    else if (call.name === "delete_file") content = null;
  }
  return content;
}

/** Arguments as they run. @param {ToolCall} call @returns {any} */
export function argumentsOf(call) {
  const value = call.executed ?? call.arguments;
  return typeof value === "object" && value !== null ? value : {};
}

/** @param {any} result of read_file: the text itself, or an object that holds it */
function contentIn(result) {
  if (typeof result === "string") return result;
  return typeof result?.content === "string" ? result.content : null;
}

// ------------------------------------------------------------------------------------------------ figures

/** @param {number|null|undefined} milliseconds like `340 ms`, `2.4 s`, `3 min 5 s`, `2 h 3 min` */
export function duration(milliseconds) {
  if (typeof milliseconds !== "number") return "";
  if (milliseconds < 1_000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1_000;
  if (seconds < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number} milliseconds that are left, like `0:42`, `12:05`, `3:00:00`, `2 days` */
export function remaining(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1_000));
  if (seconds >= 2 * 86_400) return `${Math.floor(seconds / 86_400)} days`;
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

const NUMBER = new Intl.NumberFormat([], { maximumFractionDigits: 0 });

/** @param {any} usage @param {number|null} [took] milliseconds @returns {string} like `1,204 tokens · 0.012 · 3.4 s` */
export function usageText(usage, took = null) {
  const parts = [];
  if (usage?.total_tokens) parts.push(`${NUMBER.format(usage.total_tokens)} tokens`);
  if (typeof usage?.cost === "number") parts.push(`cost ${costText(usage.cost)}`);
  if (took !== null) parts.push(duration(took));
  return parts.join(" · ");
}

/** In the currency of the configured prices, which nobody tells; small sums have more digits. @param {number} cost */
export function costText(cost) {
  return cost.toFixed(cost >= 1 || cost === 0 ? 2 : 4);
}

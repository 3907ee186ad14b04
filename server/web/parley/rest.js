/** REST requests. */

import { ParleyError, TIMINGS, browserEnvironment } from "./basics.js";

/** @typedef {import("./basics.js").Environment} Environment */

/**
 * One REST request; the answer's JSON. Refusals are thrown as `ParleyError`, a lost connection as fetch throws it.
 * @param {string} path like `/sessions`
 * @param {{url?: string, token?: string, method?: string, body?: unknown, timeoutMs?: number}} [options]
 * @param {Environment} [env]
 * @returns {Promise<any>}
 */
export async function request(path, options = {}, env = browserEnvironment()) {
  const { token, body, timeoutMs = TIMINGS.acknowledge } = options;
  const { method = body === undefined ? "GET" : "POST" } = options;
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  /** @type {Record<string, string>} */
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  const abort = new AbortController();
  const timer = env.setTimeout(() => abort.abort(), timeoutMs);
  try {
    const response = await env.fetch(baseOf(options.url) + path, {
      method, signal: abort.signal, cache: "no-store",
      headers: { Accept: "application/json", ...type, ...bearer(token) }, ...sent,
    });
    const text = await response.text();
    const answer = jsonOrNull(text);
    if (response.ok) return answer;
    const wait = typeof answer?.retry_after === "number" ? answer.retry_after * 1000 : retryAfter(response);
    const message = answer?.detail ?? answer?.title ?? `the server answered ${response.status}`;
    const more = { path: answer?.path, status: response.status, retryAfterMs: wait };
    throw new ParleyError(answer?.code ?? `http_${response.status}`, message, more);
  } finally {
    env.clearTimeout(timer);
  }
}

/** @param {string} text */
export function jsonOrNull(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {string|undefined} url */
export function baseOf(url) {
  return (url ?? globalThis.location?.origin ?? "").replace(/\/+$/, "");
}

/**
 * Creates a session; its `session_id` is what `connect` wants.
 * @param {{url?: string, token?: string, agent_type?: string, title?: string, session_id?: string}} [options]
 * @param {Environment} [env]
 * @returns {Promise<{session_id: string, [field: string]: any}>}
 */
export async function createSession({ url, token, ...body } = {}, env = browserEnvironment()) {
  const made = await request("/sessions", { url, token, body }, env);
  return { ...made, session_id: made.session_id ?? made.id };
}

/**
 * A ticket: it opens one stream, within seconds, where a token cannot be sent. For a page without a token, whoever has one
 * asks for it.
 * @param {{session?: string, url?: string, token?: string}} options
 * @param {Environment} [env]
 * @returns {Promise<string>}
 */
export async function requestTicket({ session, url, token }, env = browserEnvironment()) {
  const body = session === undefined ? {} : { session_id: session };
  return (await request("/auth/tickets", { url, token, body }, env)).ticket;
}

/** @param {string|undefined} token @returns {Record<string, string>} */
export function bearer(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** @param {{headers: {get(name: string): string|null}}} response @returns {number|undefined} milliseconds */
export function retryAfter(response) {
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}

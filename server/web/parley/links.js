/** Frames over a transport: one small class each, the same interface on both. */

import { bearer, retryAfter } from "./rest.js";
import { SseParser } from "./sse.js";

/** @typedef {import("./basics.js").Envelope} Envelope */
/** @typedef {import("./basics.js").Ending} Ending */
/** @typedef {import("./basics.js").Environment} Environment */

/** Every name that the library knows; EventSource delivers only names that somebody listens for. */
const EVENT_TYPES = [
  "message_created", "task_started", "task_completed", "task_cancelling", "turn_error", "direct_agent_call",
  "agent_switched", "tool_call", "tool_dispatched", "tool_result", "approval_required", "approval_resolved",
  "queue_changed", "session_updated", "message_delta", "agent_status_changed", "presence_changed",
  "approval_timeout_warning", "tool_progress", "warning", "connected", "sync", "ack", "command_error",
  "resync_required", "disconnect", "heartbeat",
];

/** @typedef {{frame: (envelope: Envelope) => void, end: (ending: Ending) => void}} Receiver */

/** Frames over a WebSocket. One message may hold several, a line each. */
export class WebSocketLink {
  #socket;

  /** @param {Environment} env @param {string} url @param {string|undefined} token @param {Receiver} receiver */
  constructor(env, url, token, receiver) {
    // A token that is no legal subprotocol name makes this throw, and the fallback, with headers, takes it.
    const protocols = ["parley.v1.json", ...(token ? [`parley.bearer.${token}`] : [])];
    this.#socket = new env.WebSocket(url.replace(/^http/, "ws"), protocols);
    this.#socket.onmessage = (/** @type {{data: unknown}} */ message) => {
      for (const line of String(message.data).split("\n")) if (line) deliver(line, receiver);
    };
    this.#socket.onclose = (/** @type {{code: number, reason: string}} */ { code, reason }) => {
      receiver.end({ code, reason });
    };
  }

  /** @param {string} text */
  send(text) {
    this.#socket.send(text);
  }

  close() {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
  }
}

/**
 * Frames over server-sent events. EventSource neither sends headers, nor tells the status of a refusal, nor
 * shows events whose names nobody listens for; where one of these matters the stream is read with fetch.
 */
export class SseLink {
  #env;
  #url;
  #token;
  #receiver;
  /** @type {any} */
  #source = null;
  #abort = new AbortController();

  /**
   * @param {Environment} env
   * @param {string} url
   * @param {string|undefined} token
   * @param {Receiver} receiver
   * @param {boolean} byFetch
   */
  constructor(env, url, token, receiver, byFetch) {
    this.#env = env;
    this.#url = url;
    this.#token = token;
    this.#receiver = receiver;
    if (byFetch || token || !env.EventSource) this.#read();
    else this.#listen();
  }

  #listen() {
    let heard = false;
    const source = this.#source = new this.#env.EventSource(this.#url);
    const onevent = (/** @type {{data: string}} */ message) => {
      heard = true;
      deliver(message.data, this.#receiver);
    };
    for (const type of ["message", ...EVENT_TYPES]) source.addEventListener(type, onevent);
    source.onerror = () => {
      // A ticket is used up by now, and the answer would be about that.
      if (source.readyState === 2 && !heard && !/[?&]ticket=/.test(this.#url)) this.#read();
      // Whoever hears this closes the source: its own reconnecting knows neither our cursor nor our patience.
      else this.#receiver.end({ why: "connection_lost" });
    };
  }

  async #read() {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream", ...bearer(this.#token) };
    try {
      const response = await this.#env.fetch(this.#url, { headers, signal: this.#abort.signal, cache: "no-store" });
      if (response.status !== 200 || !response.body) {
        return this.#receiver.end({ status: response.status, retryAfterMs: retryAfter(response) });
      }
      const parser = new SseParser();
      const reader = response.body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        for (const { data } of parser.feed(part.value)) deliver(data, this.#receiver);
      }
      return this.#receiver.end({ why: "connection_lost" });
    } catch (error) {
      return this.#receiver.end({ why: "connection_lost", error });
    }
  }

  close() {
    this.#source?.close();
    this.#abort.abort();
  }
}

/** @param {string} text @param {Receiver} receiver */
function deliver(text, receiver) {
  let envelope;
  try {
    envelope = JSON.parse(text);
  } catch {
    return receiver.end({ why: "malformed" });
  }
  if (typeof envelope?.event_type === "string") receiver.frame(envelope);
  return undefined;
}

/**
 * Parley's browser client: one session as one object, over WebSocket where that works and over
 * EventSource with POST where it does not. No dependencies, no build step.
 *
 *     import { connect, createSession, Conversation } from "/parley.js";
 *     const { session_id } = await createSession();
 *     const session = connect({ session: session_id, after: 0 });
 *     const conversation = new Conversation().follow(session);
 *     conversation.on("change", () => draw(conversation.messages));
 *     await session.message("Hello");
 *     session.registerTools([{ name: "page_title", parameters: { type: "object" }, run: () => document.title }]);
 *
 * This file says what there is; its parts stand in `parley/`, one file for each thing that they do. Everything from
 * outside (sockets, fetch, timers, the clock, randomness, storage) comes in through `Environment`.
 */

import { browserEnvironment } from "./parley/basics.js";
import { Session } from "./parley/session.js";

export { ParleyError, TIMINGS, browserEnvironment } from "./parley/basics.js";
export { CallBook } from "./parley/calls.js";
export { Conversation } from "./parley/conversation.js";
export { MessageText } from "./parley/deltas.js";
export { CallMemory } from "./parley/memory.js";
export { Outbox } from "./parley/outbox.js";
export { Backoff, TransportChoice, judge } from "./parley/patience.js";
export { Sequencer, parseCursor } from "./parley/position.js";
export { createSession, request, requestTicket } from "./parley/rest.js";
export { Session } from "./parley/session.js";
export { SseParser } from "./parley/sse.js";

/**
 * Opens a session and keeps it open. Returns at once; await `session.ready` to know that it has caught up.
 * @param {import("./parley/basics.js").ConnectOptions} options
 * @param {import("./parley/basics.js").Environment} [env]
 * @returns {Session}
 */
export function connect(options, env = browserEnvironment()) {
  return new Session(options, env);
}

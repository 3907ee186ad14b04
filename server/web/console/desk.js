/**
 * The session that lies on the desk: the one that the page shows. Everything else on the page listens to it.
 *
 * Events (`detail` in brackets): `open` another session is on the desk; `change` the conversation changed, once a frame; `event` (the
 * server's event); `state` (parley.js's state change); `sent` something was sent or came to an end.
 */

import { Conversation, connect } from "/parley.js";
import { token } from "./access.js";

class Desk extends EventTarget {
  /** @type {import("../parley.js").Session|null} */
  session = null;
  conversation = new Conversation();
  /** What was sent and not yet acknowledged, by a number of ours. @type {Map<number, string>} */
  sending = new Map();
  #sends = 0;
  #changing = false;

  get id() {
    return this.session?.sessionId ?? null;
  }

  /** What the session is about, in a few words; empty before anything was said. */
  get title() {
    const { session, messages } = this.conversation;
    const first = messages.find((message) => message.role === "user")?.content ?? "";
    return (session?.title || first).replace(/\s+/g, " ").trim().slice(0, 120);
  }

  /** Whether nothing was ever said in it, nor a title given to it. */
  get unused() {
    const { messages, queue } = this.conversation;
    return this.session?.state === "open" && !this.title && !(messages.length || queue.length || this.sending.size);
  }

  /** Puts a session on the desk, in the place of the one there. @param {string} id */
  open(id) {
    const former = this.session;
    this.session = null; // what it says from now on is nobody's concern
    former?.close();
    this.sending.clear();
    const session = connect({ session: id, after: 0, token: () => token.get() || undefined });
    this.session = session;
    this.conversation = new Conversation().follow(session);
    this.conversation.on("change", () => this.#changed(session));
    session.on("*", (event) => this.#tell("event", event, session));
    session.on("state", (change) => this.#tell("state", change, session));
    this.#tell("open", id);
    this.#tell("state", { state: session.state, transport: session.transport, reason: null, error: null });
    this.#changed(session);
  }

  /** Says once a frame that something changed, whatever number of events came; also in a tab that is not looked at. */
  #changed(/** @type {any} */ of) {
    if (this.#changing) return;
    this.#changing = true;
    const soon = document.hidden ? (/** @type {() => void} */ work) => setTimeout(work, 100) : requestAnimationFrame;
    soon(() => {
      this.#changing = false;
      this.#tell("change", null, this.session ?? of);
    });
  }

  /**
   * Sends a message and keeps it in sight until it is acknowledged. Rejects when it was refused.
   * @param {string} text
   * @param {"enqueue"|"interrupt"|"steer"} [onBusy] what it does while a turn is running
   */
  async send(text, onBusy = "enqueue") {
    const to = /** @type {import("../parley.js").Session} */ (this.session);
    const key = (this.#sends += 1);
    this.sending.set(key, text);
    this.#tell("sent");
    try {
      await to.message(text, onBusy === "enqueue" ? {} : { onBusy });
    } finally {
      this.sending.delete(key);
      this.#tell("sent", null, to);
    }
  }

  /** Stops the running turn. Rejects when that was refused; a turn that ended by itself is what was wanted. */
  async stop() {
    const { turn } = this.conversation;
    if (!this.session || turn === null || turn.cancelling) return;
    turn.cancelling = true;
    this.#changed(this.session);
    try {
      await this.session.cancel(turn.turn_id);
    } catch (error) {
      turn.cancelling = false;
      this.#changed(this.session);
      if (/** @type {any} */ (error).code !== "no_active_turn") throw error;
    }
  }

  /** @param {string} name @param {any} [detail] @param {any} [of] nothing is said of a session that is not here any more */
  #tell(name, detail = null, of = this.session) {
    if (of === this.session) this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {string} name @param {(detail: any) => void} listener */
  on(name, listener) {
    this.addEventListener(name, (event) => listener(/** @type {CustomEvent} */ (event).detail));
  }
}

export const desk = new Desk();

/** What one can say to a session: each command by a name of its own. */

import { Emitter } from "./basics.js";

/** @typedef {import("./basics.js").Ack} Ack */
/** @typedef {import("./basics.js").Command} Command */

/**
 * What a person may say with a decision. `remember` makes a rule of it: for the calls of this tool, or of `tool`, in this
 * session or in all sessions of the user, whose arguments match the globs.
 * @typedef {{feedback?: string, remember?: {scope: "call"|"session"|"user", tool?: string, arguments?: Record<string, string>}}}
 *   DecisionOptions
 */

export class Commands extends Emitter {
  /** @param {Command} command @returns {Promise<Ack>} */
  send(command) {
    return Promise.reject(new Error(`nothing carries ${command.type}`));
  }

  /**
   * @param {string|object[]} content
   * @param {{agentType?: string, onBusy?: "enqueue"|"reject"|"interrupt"|"steer", id?: string}} [options]
   */
  message(content, { agentType, onBusy, id } = {}) {
    const more = { ...(agentType && { agent_type: agentType }), ...(onBusy && { on_busy: onBusy }), ...(id && { id }) };
    return this.send({ type: "user_message", content, ...more });
  }

  /** Stops the running turn, or the one named. @param {string} [turnId] */
  cancel(turnId) {
    return this.send({ type: "cancel", ...(turnId && { turn_id: turnId }) });
  }

  /** @param {string} agentType @param {string} [reason] */
  switchAgent(agentType, reason) {
    return this.send({ type: "switch_agent", agent_type: agentType, ...(reason && { reason }) });
  }

  // ---- decisions

  /** Lets a call run as it is. @param {string} callId @param {DecisionOptions} [options] */
  approve(callId, options) {
    return this.#decide(callId, "approve", options);
  }

  /**
   * Lets a call run with other arguments, all of them; the agent is told that a person changed them.
   * @param {string} callId @param {object} modified @param {Pick<DecisionOptions, "feedback">} [options]
   */
  edit(callId, modified, options) {
    return this.#decide(callId, "edit", options, { modified_arguments: modified });
  }

  /** Refuses a call; the agent reads the feedback. @param {string} callId @param {DecisionOptions} [options] */
  reject(callId, options) {
    return this.#decide(callId, "reject", options);
  }

  /** Gives a call its result instead of running it. @param {string} callId @param {string} feedback */
  respond(callId, feedback) {
    return this.#decide(callId, "respond", { feedback });
  }

  /** @param {string} callId @param {string} decision @param {DecisionOptions} [options] @param {object} [more] */
  #decide(callId, decision, { feedback, remember } = {}, more = {}) {
    const said = { ...(feedback && { feedback }), ...(remember && { remember }) };
    return this.send({ type: "hitl_decision", call_id: callId, decision, ...more, ...said });
  }

  // ---- the queue

  /** @param {string[]} messageIds all that wait, in the order in which their turns shall come */
  reorder(messageIds) {
    return this.send({ type: "queue_update", order: messageIds });
  }

  /** Takes a message back that waits for its turn. @param {string} messageId */
  unqueue(messageId) {
    return this.send({ type: "queue_update", remove: messageId });
  }
}

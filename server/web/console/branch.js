/** What can be done with a message: copy it, try its answer again, edit it, or go on from it in a session of its own. */

import { rest } from "./access.js";
import { desk } from "./desk.js";
import { copy, icon, make } from "./dom.js";
import { complain } from "./notice.js";

/** @param {any} message @param {() => HTMLElement|undefined} place where its text stands */
export function actionsOf(message, place) {
  const actions = [];
  const { message_id: id, role, content, parent_call_id: under } = message;
  if (content) {
    const button = make("button", { type: "button", class: "icon", title: "Copy", "aria-label": "Copy this message", "data-testid": "copy-message" }, icon("copy"));
    button.addEventListener("click", () => copy(button, content, place()));
    actions.push(button);
  }
  if (!under && role === "user") {
    actions.push(action("edit", "edit-message", "Edit", "Edit this message, in a session of its own", () => edit(message, place())));
  }
  if (!under && message.finish_reason !== "tool_calls" && role !== "tool") {
    actions.push(action("branch", "fork", "Branch", "Go on from here in a session of its own", () => {
      leave("The session was not branched", "fork", { message_id: id });
    }));
  }
  if (!under && role === "assistant" && message.finish_reason !== "tool_calls") {
    actions.push(action("retry", "retry-turn", "Try again", "Have the last turn again, in a session of its own", () => {
      leave("It was not tried again", "retry", {});
    }));
  }
  return actions.length ? make("div", { class: "actions", "data-of": id }, ...actions) : null;
}

/** @param {"edit"|"branch"|"retry"} name @param {string} testid @param {string} title @param {string} label @param {() => void} act */
function action(name, testid, title, label, act) {
  const button = make("button", { type: "button", class: `icon ${name}`, title, "aria-label": label, "data-testid": testid }, icon(name));
  button.addEventListener("click", act);
  return button;
}

/**
 * What comes of it is a new session; this one stays as it is.
 * @param {string} complaint @param {string} leaf @param {object} body
 * @returns {Promise<boolean>} whether there is one
 */
async function leave(complaint, leaf, body) {
  const { id } = desk;
  if (!id) return false;
  try {
    const made = await rest(`/sessions/${encodeURIComponent(id)}/${leaf}`, { method: "POST", body });
    if (id === desk.id) location.hash = `s=${made.id}`;
    return true;
  } catch (error) {
    complain(complaint, error);
    return false;
  }
}

/** Puts an editor in the place of a message's text. @param {any} message @param {HTMLElement|undefined} place */
function edit({ message_id: id, content }, place) {
  const node = /** @type {HTMLElement|null} */ (place?.closest(".message") ?? null);
  if (!place || !node || node.querySelector(".message-editor")) return;
  const field = make("textarea", { "aria-label": "Edit the message", "data-testid": "message-editor", rows: String(Math.min(12, content.split("\n").length + 1)) });
  field.value = content;
  const send = make("button", { type: "submit", class: "primary small", "data-testid": "send-message-edit" }, "Send in a new session");
  const back = make("button", { type: "button", class: "ghost small" }, "Cancel");
  const form = make("form", { class: "message-editor" }, field, make("div", { class: "choices" }, back, send));
  const close = () => {
    form.remove();
    place.hidden = false;
    /** @type {HTMLElement|null} */ (node.querySelector(".actions .edit"))?.focus();
  };
  field.addEventListener("input", () => { send.disabled = !field.value.trim() || field.value === content; });
  send.disabled = true;
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!send.disabled) form.requestSubmit();
    }
  });
  back.addEventListener("click", close);
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    form.inert = true;
    const sent = await leave("The edited message was not sent", `messages/${encodeURIComponent(id)}/edit`, { content: field.value });
    form.inert = false;
    if (sent) close();
  });
  place.hidden = true;
  place.after(form);
  field.focus();
}

/** Where the reader writes: sending, stopping, and drafts, one for each session, kept for as long as the tab. */

import { desk } from "./desk.js";
import { $, make } from "./dom.js";
import { followAgain } from "./follow.js";
import { observing } from "./here.js";
import { forThisTab } from "./keep.js";
import { complain, notify } from "./notice.js";

/** What the offline agent understands, for the first visit. */
const SUGGESTIONS = ["show markdown", "count to 100 slowly", "think about trees", "what time is it", "help"];

/** @type {{get: () => string|null, set: (value: string) => void}|null} */
let draft = null;

/** What a message does while a turn is running, as it was chosen in this tab. */
const manner = forThisTab("on-busy");

/** @returns {"enqueue"|"interrupt"|"steer"} */
const onBusy = () => (desk.conversation.turn === null ? "enqueue" : $("on-busy").value);

/** @param {"enqueue"|"interrupt"|"steer"} how */
async function send(how = onBusy()) {
  const field = $("composer");
  const text = field.value;
  const { session } = desk;
  if (!text.trim() || !session || session.state === "closed" || observing()) return;
  write("");
  notify("");
  followAgain();
  try {
    await desk.send(text, how);
  } catch (error) {
    if (session !== desk.session) return;
    complain("Not sent", error);
    if (!field.value) write(text);
  }
}

/** @param {string} text */
function write(text) {
  $("composer").value = text;
  draft?.set(text);
  fit();
}

/** Grows with its text where the browser does not do so by itself. */
function fit() {
  const field = $("composer");
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

export async function stop() {
  try {
    await desk.stop();
  } catch (error) {
    complain("Not stopped", error);
  }
}

function drawControls() {
  const { turn, agent } = desk.conversation;
  const closed = desk.session?.state === "closed" || observing();
  $("stop").hidden = $("stop-key").hidden = turn === null;
  $("send-keys").hidden = turn !== null;
  $("on-busy-label").hidden = turn === null;
  $("composer").placeholder = observing() ? "You are here to read" : "Message the agent";
  $("stop").disabled = turn?.cancelling ?? false;
  $("stop").textContent = turn?.cancelling ? "Stopping…" : "Stop";
  $("composer").disabled = closed;
  $("send").disabled = closed || !$("composer").value.trim();
  $("suggestions").hidden = agent !== "offline";
}

export function startComposer() {
  const field = $("composer");
  $("composer-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    send();
  });
  field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    // While an input method composes, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send((event.ctrlKey || event.metaKey) && desk.conversation.turn ? "interrupt" : onBusy());
  });
  field.addEventListener("input", () => {
    draft?.set(field.value);
    fit();
    drawControls();
  });
  $("stop").addEventListener("click", stop);
  $("on-busy").value = manner.get() ?? "enqueue";
  $("on-busy").addEventListener("change", () => manner.set($("on-busy").value === "enqueue" ? "" : $("on-busy").value));
  $("suggestions").append(...SUGGESTIONS.map((text) => {
    const button = make("button", { type: "button", class: "ghost small" }, text);
    button.addEventListener("click", () => {
      write(text);
      send();
    });
    return button;
  }));
  desk.on("open", (id) => {
    draft = forThisTab(`draft.${id}`);
    write(draft.get() ?? "");
  });
  for (const name of ["open", "change", "state", "sent"]) desk.on(name, drawControls);
}

/** The one place where the page says that something went wrong. */

import { $ } from "./dom.js";

/**
 * @param {string} text nothing takes it away
 * @param {{renew?: boolean}} [options] `renew`: offers a new session
 */
export function notify(text, { renew = false } = {}) {
  $("notice-text").textContent = text;
  $("notice-new").hidden = !renew;
  $("notice").hidden = text === "";
}

/** Says it with its reason. @param {string} what @param {unknown} error */
export function complain(what, error) {
  notify(`${what}: ${error instanceof Error ? error.message : String(error)}`);
}

/** @param {() => void} startNew */
export function startNotice(startNew) {
  $("notice-close").addEventListener("click", () => notify(""));
  $("notice-new").addEventListener("click", startNew);
}

/** REST requests of this page, with the token where the server asks for one. */

import { request } from "/parley.js";
import { $ } from "./dom.js";
import { forThisTab } from "./keep.js";

/** In this tab only, and sent in headers, never in an address. */
export const token = forThisTab("token");

/** @type {Promise<void>|null} */
let asking = null;

/** One dialog, whoever needs it; settles when a token was entered. @param {boolean} refused */
export function askForToken(refused) {
  asking ??= new Promise((resolve) => {
    const dialog = $("token-dialog");
    $("token-refused").hidden = !refused;
    $("token").value = "";
    dialog.oncancel = (/** @type {Event} */ event) => event.preventDefault();
    dialog.onclose = () => {
      token.set($("token").value.trim());
      $("token").value = "";
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}

/**
 * Asks as often as the server wants another token.
 * @template T
 * @param {(token: string|undefined) => Promise<T>} ask
 * @returns {Promise<T>}
 */
export async function authorised(ask) {
  for (;;) {
    const used = token.get() || undefined;
    try {
      return await ask(used);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 401) throw error;
      if ((token.get() || undefined) === used) await askForToken(used !== undefined);
    }
  }
}

/** @param {string} path @param {{method?: string, body?: unknown}} [options] @returns {Promise<any>} */
export const rest = (path, options = {}) => authorised((bearer) => request(path, { ...options, token: bearer }));

/**
 * REST requests of this page, and who the reader is. A server that asks for a token gets it once, in a header, and
 * answers with a cookie that no script can read; where the browser keeps no cookies the token stays in this tab.
 */

import { request } from "/parley.js";
import { $ } from "./dom.js";
import { forThisTab } from "./keep.js";

/** Only where there is no cookie; sent in headers, never in an address. */
export const token = forThisTab("token");

/** @type {Promise<void>|null} */
let asking = null;
/** How often a token was given: one that was given before may not do any more. */
let given = 0;

/** One dialog, whoever needs it; settles when a token was entered that the server takes. */
export function signIn() {
  asking ??= enter(given > 0 || token.get() !== null).finally(() => { asking = null; });
  return asking;
}

/** @param {boolean} refused */
async function enter(refused) {
  for (let again = refused; ; again = true) {
    const entered = await ask(again);
    token.set("");
    try {
      await request("/auth/login", { method: "POST", token: entered });
      await request("/auth/login"); // with the cookie alone
    } catch (error) {
      const refused = /** @type {any} */ (error).status === 401;
      if (refused && !await takes(entered)) continue;
      token.set(entered);
    }
    given += 1;
    return;
  }
}

/** Whether the server takes a token by itself, or is away and will say later. @param {string} entered */
async function takes(entered) {
  try {
    await request("/auth/login", { token: entered });
    return true;
  } catch (error) {
    return /** @type {any} */ (error).status !== 401;
  }
}

/** @param {boolean} refused @returns {Promise<string>} */
function ask(refused) {
  return new Promise((resolve) => {
    const dialog = $("token-dialog");
    $("token-refused").hidden = !refused;
    $("token").value = "";
    dialog.oncancel = (/** @type {Event} */ event) => event.preventDefault();
    dialog.onclose = () => {
      const given = $("token").value.trim();
      $("token").value = "";
      resolve(given);
    };
    dialog.showModal();
  });
}

/** Forgets the reader, here and at the server. */
export async function signOut() {
  token.set("");
  await request("/auth/login", { method: "DELETE" });
  location.reload();
}

/**
 * Asks as often as the server wants another token.
 * @template T
 * @param {(token: string|undefined) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function authorised(work) {
  for (;;) {
    const before = given;
    try {
      return await work(token.get() || undefined);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 401) throw error;
      if (given === before) await signIn(); // else somebody did while this was on its way
    }
  }
}

/** @param {string} path @param {{method?: string, body?: unknown}} [options] @returns {Promise<any>} */
export const rest = (path, options = {}) => authorised((bearer) => request(path, { ...options, token: bearer }));

/** What the browser remembers for us: theme, token, drafts. Storage may be forbidden, and the page works without. */

/**
 * @param {() => Storage} where
 * @param {string} key
 */
export function kept(where, key) {
  return {
    /** @returns {string|null} */
    get() {
      try {
        return where().getItem(key);
      } catch {
        return null; // what cannot be kept is asked for again
      }
    },
    /** @param {string} value empty takes it away */
    set(value) {
      try {
        if (value) where().setItem(key, value);
        else where().removeItem(key);
      } catch {
        // Only the next visit starts anew.
      }
    },
  };
}

/** For this browser. @param {string} key */
export const forEver = (key) => kept(() => localStorage, `parley.${key}`);
/** For this tab. @param {string} key */
export const forThisTab = (key) => kept(() => sessionStorage, `parley.${key}`);

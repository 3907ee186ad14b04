/** What a client remembers of the calls that it was given, so that none of them runs twice. */

/** @typedef {import("./basics.js").Command} Command */
/** @typedef {Pick<Storage, "getItem"|"setItem"|"removeItem">} Store */

/** Calls that are remembered; the oldest are let go first. A session has few at a time. */
const MOST_CALLS = 200;

/**
 * Calls by their ids: `null` was begun, a command is its answer, `true` was answered and acknowledged. With a store, also
 * for the next page of this tab: what is written there before a call begins is what a reload knows of it.
 */
export class CallMemory {
  /** @type {Map<string, (Command & {id: string})|true|null>} */
  #calls = new Map();
  #store;
  #key;

  /** @param {Store|null} [store] @param {string} [key] */
  constructor(store = null, key = "") {
    this.#store = store;
    this.#key = key;
    try {
      for (const [id, state] of Object.entries(JSON.parse(store?.getItem(key) ?? "{}"))) this.#calls.set(id, state);
    } catch {
      // Forbidden, or not ours: nothing is known.
    }
  }

  /** @param {string} id @returns {(Command & {id: string})|true|null|undefined} undefined: never heard of */
  get(id) {
    return this.#calls.get(id);
  }

  /** Answers that are still to be delivered. */
  get answers() {
    return [...this.#calls.values()].filter((state) => state !== null && state !== true);
  }

  /** @param {string} id */
  begin(id) {
    this.#set(id, null);
  }

  /** @param {string} id @param {Command & {id: string}} command */
  answer(id, command) {
    this.#set(id, command);
  }

  /** @param {string} id its answer has arrived, or nobody wants it any more */
  settle(id) {
    if (this.#calls.has(id)) this.#set(id, true);
  }

  /** @param {string} id @param {(Command & {id: string})|true|null} state */
  #set(id, state) {
    this.#calls.delete(id);
    this.#calls.set(id, state);
    for (const [oldest, known] of this.#calls) {
      if (this.#calls.size <= MOST_CALLS) break;
      if (known === true) this.#calls.delete(oldest);
    }
    this.#save();
  }

  #save() {
    if (!this.#store) return;
    const calls = [...this.#calls];
    // An answer that is too large to be kept is not; that its call was begun is what matters most.
    for (const kept of [calls, calls.map(([id, state]) => [id, state === true || null])]) {
      try {
        this.#store.setItem(this.#key, JSON.stringify(Object.fromEntries(kept)));
        return;
      } catch {
        // Full, or forbidden: the next page will not know.
      }
    }
  }
}

/**
 * A client's name that outlives a reload, and is nobody else's: a tab that was duplicated has a copy of what the first
 * one keeps, and gets a name of its own. The browser's locks tell; without them there is no such name.
 * @param {import("./basics.js").Environment} env
 * @param {string} session
 * @param {number} patience milliseconds for a page that is just going away
 * @returns {Promise<{clientId: string, store: Store|null, release: () => void}>}
 */
export async function lastingClient(env, session, patience = 300) {
  const fresh = { clientId: env.uuid(), store: null, release: () => {} };
  const { locks, storage } = env;
  if (!locks || !storage) return fresh;
  const key = `parley.client.${session}`;
  try {
    const known = storage.getItem(key);
    const held = known ? await hold(locks, `${key}.${known}`, env, patience) : null;
    if (known && held) return { clientId: known, store: storage, release: held };
    storage.setItem(key, fresh.clientId);
    const release = await hold(locks, `${key}.${fresh.clientId}`, env, patience);
    return release ? { ...fresh, store: storage, release } : fresh;
  } catch {
    return fresh; // storage is forbidden here
  }
}

/**
 * @param {LockManager} locks
 * @param {string} name
 * @param {import("./basics.js").Environment} env
 * @param {number} patience
 * @returns {Promise<(() => void)|null>} gives it back; null when somebody else has it
 */
export function hold(locks, name, env, patience) {
  return new Promise((resolve) => {
    const abort = new AbortController();
    const timer = env.setTimeout(() => abort.abort(), patience);
    const gone = () => resolve(null);
    locks.request(name, { signal: abort.signal }, () => new Promise((release) => {
      env.clearTimeout(timer);
      resolve(() => release(undefined));
    })).catch(gone);
  });
}

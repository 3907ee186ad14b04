/**
 * Event streams of all tabs together. Over HTTP/1.1 a browser opens six connections to a host, and a stream holds one for
 * as long as it is open: with six of them the next request of any tab waits for ever. So no more than four are opened at
 * a time, one a slot, by the browser's locks; who finds none free waits, and tabs that nobody looks at make room.
 */

/** @typedef {import("./basics.js").Environment} Environment */

/** Two connections are left for requests. */
const SLOTS = 4;
const WANTED = "wanted";

export class StreamSlots {
  #env;
  #prefix;
  #makeRoom;
  /** @type {(() => void)|null} */
  #release = null;
  /** @type {AbortController|null} */
  #waiting = null;
  /** @type {BroadcastChannel|null} */
  #channel = null;

  /**
   * @param {Environment} env
   * @param {string} host whose connections are counted
   * @param {() => void} makeRoom another tab wants a slot while this one holds one and nobody looks at it
   */
  constructor(env, host, makeRoom) {
    this.#env = env;
    this.#prefix = `parley.stream.${host}`;
    this.#makeRoom = makeRoom;
  }

  /** Whether streams have to be counted at all: not where many share a connection, nor where tabs cannot tell each other. */
  get needed() {
    return Boolean(this.#env.locks) && !this.#env.multiplexed?.();
  }

  /**
   * @param {() => void} wait called when there is no free one
   * @returns {Promise<boolean>} false: `free` was called meanwhile
   */
  async take(wait) {
    this.free();
    const waiting = this.#waiting = new AbortController();
    const taken = await this.#anyNow() ?? await this.#anyLater(waiting.signal, wait);
    if (waiting.signal.aborted) {
      taken?.();
      return false;
    }
    this.#waiting = null;
    this.#release = taken;
    return true;
  }

  /** Gives the slot back, or gives up waiting for one. */
  free() {
    this.#waiting?.abort();
    this.#release?.();
    this.#waiting = this.#release = null;
  }

  close() {
    this.free();
    this.#channel?.close();
    this.#channel = null;
  }

  get #names() {
    return Array.from({ length: SLOTS }, (_, number) => `${this.#prefix}.${number}`);
  }

  /** @returns {Promise<(() => void)|null>} */
  async #anyNow() {
    this.#listen();
    for (const name of this.#names) {
      const release = await this.#hold(name, { ifAvailable: true });
      if (release) return release;
    }
    return null;
  }

  /** @param {AbortSignal} signal @param {() => void} wait @returns {Promise<(() => void)|null>} */
  #anyLater(signal, wait) {
    if (signal.aborted) return Promise.resolve(null);
    wait();
    this.#channel?.postMessage(WANTED);
    return new Promise((resolve) => {
      const others = new AbortController();
      signal.addEventListener("abort", () => {
        others.abort();
        resolve(null);
      });
      for (const name of this.#names) {
        this.#hold(name, { signal: others.signal }).then((release) => {
          if (release === null) return;
          if (others.signal.aborted) {
            release();
            return;
          }
          others.abort();
          resolve(release);
        });
      }
    });
  }

  /** @param {string} name @param {LockOptions} options @returns {Promise<(() => void)|null>} gives it back; null: it was not to be had */
  #hold(name, options) {
    const { locks } = this.#env;
    return new Promise((resolve) => {
      if (!locks) return resolve(null);
      return locks.request(name, options, (lock) => {
        if (lock === null) return resolve(null);
        return new Promise((release) => resolve(() => release(undefined)));
      }).catch(() => resolve(null));
    });
  }

  #listen() {
    this.#channel ??= this.#env.channel?.(this.#prefix) ?? null;
    if (!this.#channel) return;
    this.#channel.onmessage = ({ data }) => {
      if (data === WANTED && this.#release && this.#env.hidden?.()) this.#makeRoom();
    };
  }
}

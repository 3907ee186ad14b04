/** A Markdown text on the page, however often it grows. */

import { MarkdownStream } from "./stream.js";
import { unhighlight } from "./highlight.js";
import { colour, patchChildren } from "./render.js";

/** An update that took long is not repeated before this many times as long has passed: the page stays quick. */
const REST = 4;

export class MarkdownView {
  #stream = new MarkdownStream();
  /** What is on the page. @type {any[]} */
  #trees = [];
  #text = "";
  #done = false;
  #notBefore = 0;
  #container;

  /** @param {HTMLElement} container empty, and nobody else's */
  constructor(container) {
    this.#container = container;
  }

  /**
   * Shows a text.
   * @param {string} text
   * @param {boolean} done whether it will not grow any more
   * @returns {boolean} false: not yet, as the last time took too long; ask again in the next frame
   */
  update(text, done) {
    if (text === this.#text && done === this.#done) return true;
    const begun = performance.now();
    if (!done && begun < this.#notBefore) return false;
    if (this.#done) this.#restart();
    const trees = this.#stream.write(text, done);
    patchChildren(this.#container, this.#trees, trees, firstOther(this.#trees, trees));
    this.#text = text;
    this.#trees = trees;
    this.#notBefore = performance.now() + REST * (performance.now() - begun);
    if (done) this.#finish();
    return true;
  }

  /** A finished text is only looked at: nothing about how it came to be is kept. */
  #finish() {
    this.#done = true;
    this.#stream = new MarkdownStream();
    this.#trees = [];
    colour(this.#container);
  }

  /** What was finished is written anew after all. */
  #restart() {
    this.#done = false;
    for (const code of this.#container.querySelectorAll("code")) unhighlight(code);
    this.#container.replaceChildren();
  }
}

/** @param {any[]} former @param {any[]} trees the first of them that is another object */
function firstOther(former, trees) {
  let index = 0;
  while (index < former.length && former[index] === trees[index]) index += 1;
  return index;
}

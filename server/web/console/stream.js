/**
 * A Markdown text that grows. What is finished is read once and stays; only the block at the end, which the next
 * character may still change, is read again.
 *
 * Blocks of CommonMark are decided line by line, so all but the last one of the complete lines are finished. Two things
 * look further: a definition of a link may go on in the next line, and lines after the last blank one may still become
 * something else together. Hence a block is only cut off where a blank line or a whole further block stands behind it.
 * The one thing that reaches back, a definition of a link at the end for a label at the beginning, is looked after here.
 */

import { heldBack, withTableRow } from "./mend.js";
import { References, parse, plain } from "./markdown.js";

/** Characters of a text that are formatted; what follows is shown as it was written. Far beyond what models write. */
export const MAX_FORMATTED = 200_000;
/** How far beyond that the end of a line is looked for. */
const LONGEST_LINE = 20_000;

/** @typedef {{source: string, trees: any[], missing: Set<string>}} Section lines that were cut off together */

export class MarkdownStream {
  /** @type {Section[]} */
  #sections = [];
  #references = new References();
  #source = "";
  /** Where the text begins that is not in a section. */
  #settled = 0;
  /** Complete lines that were looked through for the last time. */
  #looked = 0;
  /** @type {any[]} */
  #open = [];
  #done = false;

  /** Everything there is to show: trees, in order. Finished ones are the same objects as before. @returns {any[]} */
  get trees() {
    return [...this.#sections.flatMap((section) => section.trees), ...this.#open];
  }

  /** How many of the trees will not change any more, but for links that are defined further down. */
  get finished() {
    return this.#sections.reduce((sum, section) => sum + section.trees.length, 0);
  }

  /**
   * @param {string} text all of it so far; one that does not begin with the former text starts afresh
   * @param {boolean} done whether that is all
   * @returns {any[]} the trees
   */
  write(text, done) {
    const source = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
    if (this.#done || !source.startsWith(this.#source)) this.#restart();
    this.#source = source;
    const end = formattedEnd(source);
    this.#done = done;
    this.#open = done ? [] : this.#shown(source.slice(0, end));
    if (done) this.#add(source.slice(this.#settled, end));
    if (end < source.length) this.#open = [...this.#open, plain(source.slice(end))];
    return this.trees;
  }

  #restart() {
    this.#sections = [];
    this.#references = new References();
    this.#source = "";
    this.#settled = this.#looked = 0;
    this.#done = false;
  }

  /** Cuts off what is finished. @param {string} source @returns {boolean} whether anything was */
  #settle(source) {
    const complete = source.lastIndexOf("\n") + 1;
    if (complete <= this.#looked) return false;
    this.#looked = complete;
    const lines = source.slice(this.#settled, complete);
    const length = finishedLength(lines, parse(lines, new References(this.#references)));
    if (length === 0) return false;
    this.#add(lines.slice(0, length));
    this.#settled += length;
    return true;
  }

  /** @param {string} source of blocks that are finished */
  #add(source) {
    if (!source) return;
    const before = new Set(this.#references.labels);
    this.#sections.push(this.#read(source));
    const defined = this.#references.labels.filter((label) => !before.has(label));
    if (!defined.length) return;
    for (const [index, { source: earlier, missing }] of this.#sections.entries()) {
      if (defined.some((label) => missing.has(label))) this.#sections[index] = this.#read(earlier);
    }
  }

  /** @param {string} source @returns {Section} */
  #read(source) {
    this.#references.missing = new Set();
    const trees = treesOf(parse(source, this.#references));
    return { source, trees, missing: this.#references.missing };
  }

  /** What to show of a text whose end is open. @param {string} source @returns {any[]} */
  #shown(source) {
    const tail = heldBack(source.slice(this.#settled));
    // Behind a blank line nothing is open.
    const options = { open: !/\n[ \t]*\n[ \t]*$/.test(tail) };
    const read = (/** @type {string} */ text) => parse(text, new References(this.#references), options);
    let blocks = read(tail);
    // While there is one block only, which may be long, nothing can have been finished.
    if (blocks.length > 1 && this.#settle(source)) return this.#shown(source);
    const row = options.open && !endsInCode(blocks) ? withTableRow(tail) : null;
    if (row !== null) blocks = read(row);
    return treesOf(blocks);
  }
}

/** @param {import("./markdown.js").Block[]} blocks @returns {any[]} */
const treesOf = (blocks) => blocks.map((block) => block.tree).filter(Boolean);

/**
 * How much of some complete lines is finished.
 * @param {string} lines
 * @param {import("./markdown.js").Block[]} blocks of these lines
 */
function finishedLength(lines, blocks) {
  if (blocks.length < 2) return 0;
  const starts = [0];
  for (let at = lines.indexOf("\n"); at >= 0; at = lines.indexOf("\n", at + 1)) starts.push(at + 1);
  const [former, last] = blocks.slice(-2);
  const before = lines.slice(starts[last.line - 1], starts[last.line]);
  return starts[before.trim() === "" ? last.line : former.line];
}

/** @param {import("./markdown.js").Block[]} blocks */
function endsInCode(blocks) {
  let tree = blocks.at(-1)?.tree;
  while (tree?.children?.length) tree = tree.children.at(-1);
  return tree?.tag === "code-block";
}

/** Where formatting ends: with the line that passes the limit. @param {string} source */
function formattedEnd(source) {
  if (source.length <= MAX_FORMATTED) return source.length;
  const end = source.indexOf("\n", MAX_FORMATTED) + 1;
  if (end > 0 && end <= MAX_FORMATTED + LONGEST_LINE) return end;
  const cut = Math.min(source.length, MAX_FORMATTED + LONGEST_LINE);
  // Never between the halves of a character.
  return /[\ud800-\udbff]/.test(source[cut - 1] ?? "") ? cut - 1 : cut;
}

/** Code and changes as they stand in cards: a title, and a box that can be scrolled. */

import { brief, count } from "./diff.js";
import { make } from "./dom.js";
import { highlight } from "./highlight.js";

/** Of a text; the whole of it stands in the event log. */
const LONGEST = 20_000;
/** @type {Record<string, [string, string]>} */
const MARKS = { same: [" ", ""], added: ["+", "added: "], removed: ["-", "taken out: "], gap: ["", ""] };

/** @param {string} title @param {string} text @param {string} [language] */
export function codePart(title, text, language = "json") {
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}\n… ${text.length - LONGEST} more characters` : text;
  const code = make("code", {}, shown);
  highlight(code, language);
  return make("div", { class: "call-part" }, make("h3", {}, title), make("pre", { tabindex: "0", "aria-label": title }, code));
}

/**
 * @param {string} title
 * @param {import("./diff.js").Line[]} lines
 */
export function diffPart(title, lines) {
  const { added, removed } = count(lines);
  const shown = brief(lines).slice(0, 2_000);
  const rows = shown.map(({ kind, text }) => {
    const [mark, spoken] = MARKS[kind];
    // The mark is drawn by the style: it is no part of what is copied.
    const row = make("span", { class: `diff-line ${kind}`, "data-mark": mark });
    if (spoken) row.append(make("span", { class: "out-of-sight" }, spoken));
    row.append(`${text}\n`);
    return row;
  });
  const head = make("h3", {}, title, " ", make("span", { class: "diff-added" }, `+${added}`), " ", make("span", { class: "diff-removed" }, `−${removed}`));
  return make("div", { class: "call-part", "data-testid": "diff" }, head, make("pre", { class: "diff", tabindex: "0", "aria-label": title }, ...rows));
}

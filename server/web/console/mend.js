/**
 * What to show of a text that is still being written. Its end is ambiguous: `**bol` will be bold, `- ` an item, `| a`
 * a table, but as long as it is not closed it reads as something else, and would change its shape a moment later.
 * Here what has begun is taken for meant, and what may become anything is held back for that moment.
 *
 * All of it is for the eye alone: the finished text is read as it is.
 */

/** A last line that is nothing but marks: of a list, a heading, a rule, a quotation, a fence, a table. */
const MARKS = /^(?:[-+*=_#`~|:>\s]*|[>\s]*\d{1,9}[.)]?|[>\s]*(?:[-+*]|\d{1,9}[.)])\s+\[[ xX]?\]?|[>\s]*(?:```|~~~)[^`\n]*)$/;

/** A last line that may become the definition of a link, which shows nothing. */
const DEFINITION = /^ {0,3}\[[^\]]*(?:\]?|\]:.*)$/;
/** A paragraph that is longer is left alone: it would be looked through with every character that comes. */
const LONGEST = 10_000;
/** Delimiters that are kept in mind; each is compared with each that follows. */
const MAX_OPEN = 50;

/**
 * The text without a last line of which nobody knows yet what it is.
 * @param {string} text
 * @returns {string}
 */
export function heldBack(text) {
  const start = text.lastIndexOf("\n") + 1;
  // Both are short; a line that is long is not looked at.
  if (text.length - start > 300) return text;
  const line = text.slice(start);
  return MARKS.test(line) || DEFINITION.test(line) ? text.slice(0, start) : text;
}

/**
 * The second row that a table needs, when the text may end in its first: a line between bars.
 * @param {string} text
 * @returns {string|null} the text with that row
 */
export function withTableRow(text) {
  const lines = text.slice(-4000).replace(/\n$/, "").split("\n");
  const last = /** @type {string} */ (lines.at(-1));
  const match = /^([>\s]*)\|(.*)$/.exec(last);
  if (!match || /^[>\s]*\|/.test(lines.at(-2) ?? "")) return null;
  const cells = match[2].replace(/\\\|/g, "").trimEnd().replace(/\|$/, "").split("|").length;
  return `${text.replace(/\n$/, "")}\n${match[1]}|${"---|".repeat(cells)}`;
}

/**
 * The text of a paragraph, a heading or a cell with what is open at its end closed.
 * @param {string} content
 * @returns {string}
 */
export function mendInline(content) {
  if (content.length > LONGEST) return content;
  // What a few more characters may turn into a delimiter, an entity, an escape, or an image.
  const text = withoutOpenLink(content.replace(/(?:\\|&#?\w{0,31}|(?<=^|\s)!)$/, ""));
  const { marks, code } = scanned(text);
  if (code && text.endsWith("`")) return mendInline(text.replace(/`+$/, ""));
  if (code) return text + code + closing(marks);
  const trailing = /(?<!\\)(?:\*+|_+|~+)$/.exec(text)?.[0] ?? "";
  if (!trailing) return marks.length ? text.trimEnd() + closing(marks) : text;
  const bare = text.slice(0, -trailing.length);
  // A delimiter after white space closes nothing.
  return bare.trimEnd() + closing(scanned(bare).marks);
}

/** @param {{text: string}[]} marks */
const closing = (marks) => marks.map((mark) => mark.text).reverse().join("");

/**
 * Delimiters without their counterpart, and the one of an open code span, found in one pass. Simpler than the rules of
 * CommonMark (6.2), as it need only be right most of the time.
 * @param {string} text
 * @returns {{marks: {text: string, at: number}[], code: string|null}}
 */
function scanned(text) {
  /** @type {{text: string, at: number}[]} */
  const marks = [];
  const tokens = /\\[^]|`+|\*+|_+|~~+/g;
  for (let match = tokens.exec(text); match; match = tokens.exec(text)) {
    const [run] = match;
    if (run.startsWith("`")) {
      const end = endOfCode(text, tokens.lastIndex, run.length);
      if (end < 0) return { marks, code: run };
      tokens.lastIndex = end;
    } else if (!run.startsWith("\\")) {
      pair(marks, run, match.index, text);
    }
  }
  return { marks, code: null };
}

/** @param {string} text @param {number} from @param {number} length @returns {number} behind it, or negative */
function endOfCode(text, from, length) {
  const runs = /`+/g;
  runs.lastIndex = from;
  for (let match = runs.exec(text); match; match = runs.exec(text)) {
    if (match[0].length === length) return runs.lastIndex;
  }
  return -1;
}

/** @param {{text: string, at: number}[]} marks @param {string} run @param {number} at @param {string} text */
function pair(marks, run, at, text) {
  const before = text[at - 1] ?? " ";
  const after = text[at + run.length] ?? " ";
  const within = run[0] === "_" && /\w/.test(before) && /\w/.test(after);
  let left = within ? 0 : run.length;
  const unit = run[0] === "~" ? 2 : 1;
  if (!/\s/.test(before)) {
    for (let index = marks.length - 1; index >= 0 && left >= unit; index -= 1) {
      if (marks[index].text[0] !== run[0]) continue;
      const taken = Math.min(marks[index].text.length, left);
      marks.length = index + (taken < marks[index].text.length ? 1 : 0);
      if (index < marks.length) marks[index] = { ...marks[index], text: marks[index].text.slice(taken) };
      left -= taken;
    }
  }
  if (left >= unit && !/\s/.test(after) && marks.length < MAX_OPEN) marks.push({ text: run.slice(0, unit === 2 ? 2 : Math.min(left, 3)), at });
}

/**
 * Of `see [the page](https://exa` only `see the page`: the address is nobody's reading matter. Also of `<https://exa`.
 * @param {string} text
 * @returns {string}
 */
function withoutOpenLink(text) {
  const angle = /<([a-zA-Z][a-zA-Z+.-]*:[^\s<>]*)$/.exec(text.slice(-2000));
  if (angle) return text.slice(0, -angle[0].length) + angle[1];
  const bracket = unmatched(text);
  if (bracket === null) return text;
  const { open, close } = bracket;
  const image = text[open - 1] === "!" ? 1 : 0;
  return text.slice(0, open - image) + text.slice(open + 1, close < 0 ? undefined : close);
}

/**
 * The last bracket whose link is not complete at the end of the text.
 * @param {string} text
 * @returns {{open: number, close: number}|null}
 */
function unmatched(text) {
  /** @type {number[]} */
  const stack = [];
  const tokens = /\\[^]|`+|[[\]]/g;
  for (let match = tokens.exec(text); match; match = tokens.exec(text)) {
    const [mark] = match;
    if (mark.startsWith("`")) {
      const end = endOfCode(text, tokens.lastIndex, mark.length);
      if (end < 0) return null;
      tokens.lastIndex = end;
    } else if (mark === "[") {
      stack.push(match.index);
    } else if (mark === "]" && stack.length) {
      const open = /** @type {number} */ (stack.pop());
      const rest = text.slice(match.index + 1);
      if (rest === "" || (rest.startsWith("(") && !closesLink(rest))) return { open, close: match.index };
    }
  }
  const open = stack.at(-1);
  // A bracket far back is just a bracket.
  return open === undefined || text.length - open > 300 ? null : { open, close: -1 };
}

/** Whether the parenthesis at the start of the text is closed in it, or can be no address. @param {string} text */
function closesLink(text) {
  let depth = 0;
  for (let index = 0; index < text.length; index += 1) {
    if (text[index] === "(") depth += 1;
    else if (text[index] === ")" && (depth -= 1) === 0) return true;
    else if (text[index] === "\n" || index > 2000) return true;
  }
  return false;
}

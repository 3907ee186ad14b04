/** What changed between two texts, line by line. */

/** @typedef {{kind: "same"|"added"|"removed"|"gap", text: string}} Line */

/** Lines of difference that are looked for; texts that differ in more are shown as one taken away and one put in. */
const MOST_CHANGES = 400;
/** Lines of a text that are compared. */
const MOST_LINES = 5_000;

/** @param {string} text */
const linesOf = (text) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));

/**
 * The shortest way from one text to another (E. W. Myers, An O(ND) Difference Algorithm, 1986).
 * @param {string} before
 * @param {string} after
 * @returns {Line[]}
 */
export function diff(before, after) {
  const [a, b] = [linesOf(before), linesOf(after)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const middle = changes(a.slice(start, a.length - end), b.slice(start, b.length - end));
  const same = (/** @type {string[]} */ lines) => lines.map((text) => /** @type {Line} */ ({ kind: "same", text }));
  return [...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))];
}

/** @param {string[]} a @param {string[]} b @returns {Line[]} */
function changes(a, b) {
  /** @type {(kind: Line["kind"]) => (text: string) => Line} */
  const as = (kind) => (text) => ({ kind, text });
  const whole = () => [...a.map(as("removed")), ...b.map(as("added"))];
  if (!a.length || !b.length || a.length + b.length > MOST_LINES) return whole();
  // The furthest that each diagonal was reached, for each number of changes.
  /** @type {Map<number, number>[]} */
  const trace = [];
  let furthest = new Map([[1, 0]]);
  for (let steps = 0; steps <= Math.min(a.length + b.length, MOST_CHANGES); steps += 1) {
    trace.push(furthest);
    const next = new Map(furthest);
    for (let diagonal = -steps; diagonal <= steps; diagonal += 2) {
      let x = comesFromAbove(furthest, diagonal, steps) ? at(furthest, diagonal + 1) : at(furthest, diagonal - 1) + 1;
      while (x < a.length && x - diagonal < b.length && a[x] === b[x - diagonal]) x += 1;
      next.set(diagonal, x);
      if (x >= a.length && x - diagonal >= b.length) return walkBack(a, b, trace);
    }
    furthest = next;
  }
  return whole();
}

/** @param {Map<number, number>} furthest @param {number} diagonal */
const at = (furthest, diagonal) => furthest.get(diagonal) ?? -1;

/** Whether the way into a diagonal is a line put in. @param {Map<number, number>} furthest @param {number} diagonal @param {number} steps */
function comesFromAbove(furthest, diagonal, steps) {
  return diagonal === -steps || (diagonal !== steps && at(furthest, diagonal - 1) < at(furthest, diagonal + 1));
}

/** @param {string[]} a @param {string[]} b @param {Map<number, number>[]} trace @returns {Line[]} */
function walkBack(a, b, trace) {
  /** @type {Line[]} */
  const lines = [];
  let [x, y] = [a.length, b.length];
  for (let steps = trace.length - 1; steps >= 0; steps -= 1) {
    const furthest = trace[steps];
    const diagonal = x - y;
    const added = comesFromAbove(furthest, diagonal, steps);
    const from = added ? diagonal + 1 : diagonal - 1;
    const [startX, startY] = steps === 0 ? [0, 0] : [at(furthest, from), at(furthest, from) - from];
    while (x > startX && y > startY && x > 0 && y > 0 && a[x - 1] === b[y - 1]) {
      lines.push({ kind: "same", text: a[x - 1] });
      x -= 1;
      y -= 1;
    }
    if (steps === 0) break;
    if (added) lines.push({ kind: "added", text: b[(y -= 1)] });
    else lines.push({ kind: "removed", text: a[(x -= 1)] });
  }
  return lines.reverse();
}

/**
 * Leaves out what is the same far from any change.
 * @param {Line[]} lines
 * @param {number} [context] lines that are kept before and after a change
 * @returns {Line[]} a `gap` says how many lines it stands for
 */
export function brief(lines, context = 3) {
  const near = new Uint8Array(lines.length);
  for (const [index, { kind }] of lines.entries()) {
    if (kind !== "same") near.fill(1, Math.max(0, index - context), index + context + 1);
  }
  /** @type {Line[]} */
  const kept = [];
  let left = 0;
  const close = () => {
    if (left) kept.push({ kind: "gap", text: `${left} ${left === 1 ? "line" : "lines"} as before` });
    left = 0;
  };
  for (const [index, line] of lines.entries()) {
    if (near[index]) {
      close();
      kept.push(line);
    } else left += 1;
  }
  close();
  return kept;
}

/** @param {Line[]} lines @returns {{added: number, removed: number}} */
export function count(lines) {
  const of = (/** @type {string} */ kind) => lines.filter((line) => line.kind === kind).length;
  return { added: of("added"), removed: of("removed") };
}

/**
 * Colours for code, by the browser's own highlights (CSS Custom Highlight API): ranges over the text, no elements in
 * it. Where the browser has none, code has one colour. It tells comments, strings, numbers and keywords apart, which
 * is most of what colours are good for, in one pass over the text; it does not parse a language.
 */

/** Longer code stays as it is. */
const LONGEST = 40_000;

/** @typedef {{comment: string, string: string, words: Set<string>, anyCase?: boolean}} Style */

const QUOTED = String.raw`"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?`;
const BACKTICKS = "|`(?:\\\\[^]|[^`\\\\])*`?";
const TRIPLE = String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|`;
const SLASHES = String.raw`\/\/.*|\/\*[^]*?(?:\*\/|$)`;
const HASH = String.raw`(?<![^\s;])#.*`;

/** @param {string} text */
const words = (text) => new Set(text.trim().split(/\s+/));

const C_WORDS = words(`
  abstract as async await bool boolean break byte case catch chan char class const constexpr continue debugger default
  defer delete do double else enum export extends extern false final finally float fn for foreach fun func function go
  goto guard if impl implements import in inline instanceof int interface internal is let long loop map match mod move
  mut namespace new nil null nullptr object of override package private protected pub public range readonly record ref
  return sealed select self short signed sizeof static string struct super switch template this throw throws trait true
  try type typedef typeof undefined union unsafe unsigned use using val var virtual void volatile when where while with
  yield satisfies keyof declare
`);
const SCRIPT_WORDS = words(`
  False None True alias and as assert async await begin break case class continue def del do done elif else elsif end
  ensure esac except export false fi finally for from function global if import in is lambda local match module nil
  nonlocal not null or pass raise redo require rescue return self set super then true try unless until when while with
  yield
`);
const SQL_WORDS = words(`
  add all alter and any as asc begin between by cascade case check column commit conflict constraint create cross
  default delete desc distinct do drop else end exists explain false fetch foreign from full function grant group having
  if in index inner insert into is join key lateral left like limit materialized not nothing null offset on or order
  outer over partition primary references returning right rollback row rows select set table then trigger true union
  unique update using values view when where window with
`);

/** @type {Record<string, Style>} */
const STYLES = {
  c: { comment: SLASHES, string: QUOTED + BACKTICKS, words: C_WORDS },
  script: { comment: HASH, string: TRIPLE + QUOTED, words: SCRIPT_WORDS },
  sql: { comment: String.raw`--.*|\/\*[^]*?(?:\*\/|$)`, string: QUOTED, words: SQL_WORDS, anyCase: true },
  markup: { comment: "<!--[^]*?(?:-->|$)", string: QUOTED, words: new Set() },
};

/** @type {Record<string, string>} */
const FAMILIES = {
  c: `c h cpp c++ cc hpp cs csharp css dart go golang groovy java javascript js json json5 jsonc jsx kotlin kt less mjs
    objc php protobuf rs rust scala scss solidity swift ts tsx typescript zig`,
  script: `bash conf console dockerfile elixir fish ini julia make makefile nix perl properties ps1 powershell py python
    python3 r rb ruby sh shell sh-session tcl toml yaml yml zsh`,
  sql: "mysql pgsql plpgsql postgres postgresql sql sqlite",
  markup: "html svg vue xml xhtml",
};

/** @type {Map<string, Style>} */
const BY_LANGUAGE = new Map(Object.entries(FAMILIES).flatMap(([family, names]) => {
  return [...words(names)].map((name) => /** @type {[string, Style]} */ ([name, STYLES[family]]));
}));

/** @type {Map<Style, RegExp>} */
const PATTERNS = new Map(Object.values(STYLES).map((style) => [style, new RegExp(
  `(?<comment>${style.comment})|(?<string>${style.string})`
  + "|(?<number>(?<![\\w.])(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)|(?<word>[A-Za-z_$][\\w$]*)",
  "g",
)]));

/**
 * What is what in a text.
 * @param {string} text
 * @param {string} language as a fence names it
 * @returns {{kind: "comment"|"string"|"number"|"keyword", start: number, end: number}[]} in order, none in another
 */
export function tokensOf(text, language) {
  const style = BY_LANGUAGE.get(language.toLowerCase());
  if (!style || text.length > LONGEST) return [];
  const found = [];
  for (const match of text.matchAll(/** @type {RegExp} */ (PATTERNS.get(style)))) {
    const groups = /** @type {Record<string, string|undefined>} */ (match.groups);
    const word = style.anyCase ? groups.word?.toLowerCase() : groups.word;
    const kind = word === undefined
      ? Object.keys(groups).find((name) => groups[name] !== undefined)
      : style.words.has(word) ? "keyword" : null;
    if (kind) found.push({ kind: /** @type {any} */ (kind), start: match.index, end: match.index + match[0].length });
  }
  return found;
}

/** @type {any} */
const registry = globalThis.CSS && "highlights" in CSS ? CSS.highlights : null;
/** @type {WeakMap<Element, {kind: string, range: StaticRange}[]>} */
const ranges = new WeakMap();

/** @param {string} kind */
function kindOf(kind) {
  const name = `code-${kind}`;
  if (!registry.has(name)) registry.set(name, new /** @type {any} */ (globalThis).Highlight());
  return registry.get(name);
}

/** @param {HTMLElement} code whose only child is a text that will not change @param {string} language */
export function highlight(code, language) {
  const node = code.firstChild;
  if (registry === null || !(node instanceof Text) || ranges.has(code)) return;
  const made = tokensOf(node.data, language).map(({ kind, start, end }) => ({
    kind,
    range: new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end }),
  }));
  if (!made.length) return;
  for (const { kind, range } of made) kindOf(kind).add(range);
  ranges.set(code, made);
}

/** @param {HTMLElement} code whose text is about to change, or that is about to go */
export function unhighlight(code) {
  for (const { kind, range } of ranges.get(code) ?? []) kindOf(kind).delete(range);
  ranges.delete(code);
}

/** Forgets the colours of everything, when all of it goes at once. */
export function forgetHighlights() {
  for (const kind of ["comment", "string", "number", "keyword"]) if (registry?.has(`code-${kind}`)) kindOf(kind).clear();
}

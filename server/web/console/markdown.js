/**
 * Markdown into trees of plain objects. Nothing here knows the DOM, and nothing anywhere makes HTML text: the library
 * reads, we take its tokens, and `render.js` builds elements of an allowlist from what is returned here.
 *
 * Raw HTML is text. Images are links, as loading one would tell its host whatever a model was talked into putting in
 * the address. Links lead to the web or to mail, or are left as they were written.
 */

import MarkdownIt from "../vendor/markdown-it.js";
import { mendInline } from "./mend.js";

/**
 * @typedef {string|Element} Tree text, or an element
 * @typedef {{tag: string, attributes?: Record<string, string>, children: Tree[]}} Element
 * @typedef {{tag: "code-block", language: string, text: string}} CodeBlock
 * @typedef {{line: number, tree: any}} Block where it begins; null as its tree when there is nothing to show
 */

/** How deep lists and quotations may be nested; what is deeper is shown as it was written. */
const MAX_NESTING = 48;
/** How deep emphasis may be nested; more of it makes no difference to look at, and a stack has an end. */
const MAX_INLINE_NESTING = 16;

const md = new (/** @type {any} */ (MarkdownIt))({ html: false, linkify: true, breaks: true, typographer: false, maxNesting: MAX_NESTING });
// Whole addresses only: `readme.md` is a file, and `a@b` in code review no mail.
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
md.validateLink = (/** @type {string} */ href) => linkTarget(href) !== null;
// An address is shown as it was written: made pretty, it could be made to look like another.
md.normalizeLinkText = (/** @type {string} */ text) => text;
// Definitions of links stay in the tokens, as whoever splits a text into blocks must know where they stand.
md.core.ruler.disable("strip_references");
md.core.ruler.after("block", "mend", (/** @type {any} */ state) => {
  if (!state.env.open) return;
  // Cells that a row of a table does not have yet are there, and empty.
  const last = state.tokens.findLast((/** @type {any} */ token) => token.nesting === 0 && token.content);
  if (last?.type === "inline") last.content = mendInline(last.content);
});

/**
 * Where a link may lead, or null. The schemes are few because each other one is a way to run something.
 * @param {string} href
 * @returns {{href: string, place: string}|null} `place`: what the reader is told about it, the host above all
 */
export function linkTarget(href) {
  let url;
  try {
    url = new URL(href);
  } catch {
    return null;
  }
  if (url.protocol === "mailto:") return { href: url.href, place: decoded(url.pathname) };
  if (!["http:", "https:"].includes(url.protocol) || !url.hostname) return null;
  // `https://bank.example@evil.example` reads like the one and leads to the other.
  if (url.username || url.password) return null;
  return { href: url.href, place: url.host };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * The definitions of links (`[label]: address`) of one text, and which labels were looked for in vain.
 */
export class References {
  /** @type {Map<string, {href: string, title: string}>} */
  #defined = new Map();
  #parent;
  /** Labels that were looked up and not found. @type {Set<string>} */
  missing = new Set();

  /** @param {References} [parent] what is defined there is defined here, and not the other way round */
  constructor(parent) {
    this.#parent = parent;
  }

  /** @param {string} label @returns {{href: string, title: string}|undefined} */
  get(label) {
    return this.#parent?.get(label) ?? this.#defined.get(label);
  }

  get labels() {
    return [...this.#defined.keys()];
  }

  /** As the library wants them: an object with labels for keys; the first definition of a label is the one that counts. */
  get asObject() {
    return new Proxy({}, {
      get: (_, label) => {
        const found = typeof label === "string" ? this.get(label) : undefined;
        if (typeof label === "string" && found === undefined) this.missing.add(label);
        return found;
      },
      set: (_, label, value) => {
        if (typeof label === "string") {
          this.#defined.set(label, value);
          this.missing.delete(label);
        }
        return true;
      },
    });
  }
}

/**
 * The blocks of a text, in order.
 * @param {string} source
 * @param {References} [references]
 * @param {{open?: boolean}} [options] `open`: it is being written, so what begins at its end is taken for meant
 * @returns {Block[]}
 */
export function parse(source, references = new References(), { open = false } = {}) {
  const tokens = md.parse(source, { references: references.asObject, open });
  /** @type {Block[]} */
  const blocks = [];
  for (let start = 0, depth = 0, index = 0; index < tokens.length; index += 1) {
    depth += tokens[index].nesting;
    if (depth > 0) continue;
    const line = tokens[start].map[0];
    blocks.push({ line, tree: tokens[start].hidden ? null : grown(tokens.slice(start, index + 1)) });
    start = index + 1;
  }
  return blocks.map((block, index) => {
    if (block.tree !== undefined) return block;
    const lines = source.split("\n").slice(block.line, blocks[index + 1]?.line);
    return { line: block.line, tree: plain(lines.join("\n").trimEnd()) };
  });
}

/** Text as it was written. @param {string} text @returns {Element} */
export function plain(text) {
  return { tag: "p", attributes: { class: "plain" }, children: [text] };
}

/** @type {Record<string, string>} */
const TAGS = {
  paragraph: "p", blockquote: "blockquote", bullet_list: "ul", ordered_list: "ol", list_item: "li", em: "em",
  strong: "strong", s: "s", table: "table", thead: "thead", tbody: "tbody", tr: "tr", th: "th", td: "td",
};

/**
 * The tree of one block from its tokens; undefined when it is nested too deeply.
 * @param {any[]} tokens
 * @returns {any}
 */
function grown(tokens) {
  /** @type {Element} */
  const root = { tag: "div", children: [] };
  const stack = [root];
  for (const token of tokens) {
    // The library drops what would be inside of this one.
    if (token.nesting === 1 && token.level + 1 >= MAX_NESTING) return undefined;
    const parent = /** @type {Element} */ (stack.at(-1));
    if (token.nesting === -1) {
      stack.pop();
      if (token.type === "list_item_close") asTask(parent);
    } else if (token.nesting === 1) {
      const element = opened(token, parent);
      if (element !== parent) parent.children.push(wrapped(element));
      stack.push(element);
    } else {
      parent.children.push(...leaves(token));
    }
  }
  return root.children[0] ?? null;
}

/** @param {any} token @param {Element} parent @returns {Element} */
function opened(token, parent) {
  const kind = token.type.replace(/_open$/, "");
  if (kind === "heading") {
    // The page's own headings are the first two levels.
    const level = Number(token.tag.slice(1));
    return { tag: `h${Math.min(level + 2, 6)}`, attributes: { "data-level": String(level) }, children: [] };
  }
  // In a tight list the text stands in the item itself.
  if (kind === "paragraph" && token.hidden) return parent;
  /** @type {Element} */
  const element = { tag: TAGS[kind] ?? "div", children: [] };
  const start = kind === "ordered_list" ? token.attrGet("start") : null;
  const align = /text-align:(\w+)/.exec(token.attrGet("style") ?? "")?.[1];
  if (start !== null) element.attributes = { start: String(start) };
  if (align) element.attributes = { "data-align": align };
  return element;
}

/** Wide tables scroll by themselves. @param {Element} element @returns {Element} */
function wrapped(element) {
  return element.tag === "table" ? { tag: "div", attributes: { class: "table" }, children: [element] } : element;
}

/** `[ ]` and `[x]` at the start of an item. @param {Element} item */
function asTask(item) {
  const place = typeof item.children[0] === "string" ? item : /** @type {Element} */ (item.children[0]);
  const text = place?.children?.[0];
  if (typeof text !== "string" || !["li", "p"].includes(place.tag)) return;
  const match = /^\[([ xX])\] /.exec(text);
  if (!match) return;
  item.attributes = { class: "task" };
  const checked = match[1] === " " ? "false" : "true";
  place.children.splice(0, 1, { tag: "input", attributes: { "data-checked": checked }, children: [] }, text.slice(4));
}

/** @param {any} token one that holds no blocks @returns {any[]} */
function leaves(token) {
  if (token.type === "inline") return inlineTrees(token.children);
  if (token.type === "hr") return [{ tag: "hr", children: [] }];
  if (token.type === "fence" || token.type === "code_block") {
    const language = md.utils.unescapeAll(token.info ?? "").trim().split(/[\s,{]/)[0];
    return [{ tag: "code-block", language, text: token.content.replace(/\n$/, "") }];
  }
  return token.content ? [plain(token.content)] : [];
}

/** @param {any[]} tokens @returns {Tree[]} */
function inlineTrees(tokens) {
  /** @type {Element} */
  const root = { tag: "span", children: [] };
  const stack = [root];
  let beyond = 0;
  for (const token of tokens) {
    const { children } = /** @type {Element} */ (stack.at(-1));
    if (token.nesting === 1) {
      if (stack.length > MAX_INLINE_NESTING) {
        beyond += 1;
      } else {
        /** @type {Element} */
        const element = token.type === "link_open"
          ? link(token.attrGet("href"), token.attrGet("title"))
          : { tag: TAGS[token.type.replace(/_open$/, "")] ?? "span", children: [] };
        children.push(element);
        stack.push(element);
      }
    } else if (token.nesting === -1) {
      if (beyond > 0) beyond -= 1;
      else stack.pop();
    } else {
      appendLeaf(children, token, stack.some((element) => element.tag === "a"));
    }
  }
  return root.children;
}

/** @param {Tree[]} children @param {any} token @param {boolean} linked whether all of it is a link already */
function appendLeaf(children, token, linked) {
  if (token.type === "softbreak" || token.type === "hardbreak") children.push({ tag: "br", children: [] });
  else if (token.type === "code_inline") children.push({ tag: "code", children: [token.content] });
  else if (token.type === "image") children.push(linked ? nameOf(token) : image(token));
  else if (typeof children.at(-1) === "string") children.push(`${children.pop()}${token.content}`);
  else if (token.content) children.push(token.content);
}

/** @param {any} token @returns {Element} */
function image(token) {
  const source = token.attrGet("src");
  const element = link(source, token.attrGet("title"));
  element.attributes = { ...element.attributes, class: "image" };
  element.children = [nameOf(token)];
  return element;
}

/** What an image shows, in words, or else its address. @param {any} token @returns {string} */
function nameOf(token) {
  const words = token.children.map((/** @type {any} */ { content, type }) => content || (type.endsWith("break") ? " " : ""));
  return words.join("") || token.attrGet("src") || "image";
}

/** @param {string} href @param {string|null} title @returns {Element} */
function link(href, title) {
  const target = linkTarget(href);
  if (target === null) return { tag: "span", children: [] };
  const { place } = target;
  return { tag: "a", attributes: { href: target.href, title: title ? `${place}: ${title}` : place }, children: [] };
}

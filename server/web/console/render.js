/**
 * The trees of `markdown.js` as elements, by an allowlist: what is not on it becomes a `div` or a `span` without
 * attributes. Nothing is ever parsed as HTML; the page's policy forbids it, too (trusted types).
 */

import { linkTarget } from "./markdown.js";
import { copy } from "./dom.js";
import { highlight, unhighlight } from "./highlight.js";

const TAGS = new Set([
  "p", "h3", "h4", "h5", "h6", "em", "strong", "s", "code", "br", "hr", "ul", "ol", "li", "blockquote", "table",
  "thead", "tbody", "tr", "th", "td", "a", "input", "div", "span",
]);

/** What a tree may set on an element, beside links, which are checked, and check boxes. */
const ATTRIBUTES = new Set(["class", "start", "title", "data-level", "data-align"]);

/** @typedef {import("./markdown.js").Tree} Tree */

/** @param {any} tree @returns {Node} */
export function build(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  if (tree.tag === "code-block") return codeBlock(tree);
  const element = document.createElement(TAGS.has(tree.tag) ? tree.tag : "span");
  dress(element, {}, tree.attributes ?? {});
  element.append(...tree.children.map(build));
  return element;
}

/** @param {HTMLElement} element @param {Record<string, string>} former @param {Record<string, string>} attributes */
function dress(element, former, attributes) {
  for (const name of Object.keys(former)) if (!(name in attributes)) element.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  }
  if (element instanceof HTMLAnchorElement) {
    const target = linkTarget(attributes.href ?? "");
    if (target === null) return;
    element.href = target.href;
    element.target = "_blank";
    element.rel = "noopener noreferrer nofollow";
  } else if (element instanceof HTMLInputElement) {
    element.type = "checkbox";
    element.disabled = true;
    element.checked = attributes["data-checked"] === "true";
  }
}

/** @param {{language: string, text: string}} tree */
function codeBlock({ language, text }) {
  const block = document.createElement("div");
  block.className = "code-block";
  const label = document.createElement("span");
  label.className = "language";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy-code";
  button.dataset.testid = "copy-code";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy this code");
  const head = document.createElement("div");
  head.className = "code-head";
  head.append(label, button);
  const code = document.createElement("code");
  code.append(text);
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.append(code);
  button.addEventListener("click", () => copy(button, code.textContent ?? "", code));
  block.append(head, pre);
  named(block, language);
  return block;
}

/** @param {HTMLElement} block @param {string} language */
function named(block, language) {
  // By style, so that it is no part of the text: neither of a selection nor of what a reader searches for.
  /** @type {HTMLElement} */ (block.querySelector(".language")).dataset.language = language.slice(0, 40);
  block.querySelector("pre")?.setAttribute("aria-label", language ? `Code, ${language.slice(0, 40)}` : "Code");
}

/**
 * Makes a node that shows one tree show another. What is equal stays, and text grows where it is, so that neither a
 * selection nor the place in a scrolled block is lost.
 * @param {ChildNode} node
 * @param {any} former
 * @param {any} tree
 * @returns {ChildNode} the node, or the one that took its place
 */
export function patch(node, former, tree) {
  if (former === tree) return node;
  const kind = typeof tree;
  if (kind !== typeof former || (kind === "object" && former.tag !== tree.tag)) {
    const fresh = /** @type {ChildNode} */ (build(tree));
    node.replaceWith(fresh);
    return fresh;
  }
  if (kind === "string") {
    setText(/** @type {Text} */ (node), tree);
  } else if (tree.tag === "code-block") {
    const block = /** @type {HTMLElement} */ (node);
    if (tree.language !== former.language) named(block, tree.language);
    const code = /** @type {HTMLElement} */ (block.querySelector("code"));
    if (tree.text !== former.text) unhighlight(code);
    setText(/** @type {Text} */ (code.firstChild ?? code.appendChild(document.createTextNode(""))), tree.text);
  } else {
    const element = /** @type {HTMLElement} */ (node);
    if (!same(former.attributes, tree.attributes)) dress(element, former.attributes ?? {}, tree.attributes ?? {});
    patchChildren(element, former.children, tree.children);
  }
  return node;
}

/**
 * @param {Element} parent whose children show the former trees, one each
 * @param {any[]} former
 * @param {any[]} trees
 * @param {number} [from] the first of them that may differ
 */
export function patchChildren(parent, former, trees, from = 0) {
  while (parent.childNodes.length > trees.length) /** @type {ChildNode} */ (parent.lastChild).remove();
  const shared = Math.min(former.length, trees.length);
  for (let index = from; index < shared; index += 1) patch(parent.childNodes[index], former[index], trees[index]);
  parent.append(...trees.slice(shared).map(build));
}

/** @param {Text} node @param {string} text */
function setText(node, text) {
  if (text === node.data) return;
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

/** @param {Record<string, string>|undefined} a @param {Record<string, string>|undefined} b */
function same(a, b) {
  if (a === b) return true;
  const [left, right] = [Object.entries(a ?? {}), Object.entries(b ?? {})];
  return left.length === right.length && left.every(([name, value]) => b?.[name] === value);
}

/** Colours the code blocks that are finished. @param {Element} container */
export function colour(container) {
  for (const block of container.querySelectorAll(".code-block")) {
    const language = /** @type {HTMLElement} */ (block.querySelector(".language")).dataset.language ?? "";
    highlight(/** @type {HTMLElement} */ (block.querySelector("code")), language);
  }
}

/** The few things that every part of the page does with elements. Text goes in as text nodes, here and everywhere. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, string|undefined>} [attributes] undefined ones are left out
 * @param {(Node|string)[]} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** @param {Element} element @param {string} name @param {string|null} value null takes it away */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const SVG = "http://www.w3.org/2000/svg";

/** @type {Record<string, string>} paths in a square of 20 */
const ICONS = {
  copy: "M7 7V4.5A1.5 1.5 0 0 1 8.5 3h7A1.5 1.5 0 0 1 17 4.5v7a1.5 1.5 0 0 1-1.5 1.5H13M4.5 7h7A1.5 1.5 0 0 1 13 8.5v7a1.5 1.5 0 0 1-1.5 1.5h-7A1.5 1.5 0 0 1 3 15.5v-7A1.5 1.5 0 0 1 4.5 7z",
  done: "M4 10.5l4 4 8-9",
  edit: "M4 16h3l8.5-8.5a2.1 2.1 0 0 0-3-3L4 13zM11 6l3 3",
  branch: "M6 3.5v7.5a3 3 0 0 0 3 3h5.5M11.5 11l3 3-3 3M6 3.5a1.5 1.5 0 1 0 .01 0",
  retry: "M4.5 10a5.5 5.5 0 1 0 1.8-4.1L4 8M4 4v4h4",
  up: "M10 16V4M5 9l5-5 5 5",
  down: "M10 4v12M5 11l5 5 5-5",
  now: "M4 4l8 6-8 6zM15.5 4v12",
  close: "M5 5l10 10M15 5L5 15",
  grip: "M7.5 5h.01M12.5 5h.01M7.5 10h.01M12.5 10h.01M7.5 15h.01M12.5 15h.01",
  delete: "M4 6h12M8 6V4h4v2M6 6l.7 10.5h6.6L14 6M8.5 9v4.5M11.5 9v4.5",
};

/** @param {keyof typeof ICONS} name @returns {SVGElement} */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * Puts a text on the clipboard and says so on the button for a moment.
 * @param {HTMLElement} button
 * @param {string} text
 * @param {Node} [source] what is selected where there is no clipboard, so that the reader's own keys copy it
 */
export async function copy(button, text, source) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard without a secure origin.
    if (source) getSelection()?.selectAllChildren(source);
    return;
  }
  if (button.dataset.copied) return;
  const former = [...button.childNodes];
  const wide = button.textContent !== "";
  button.dataset.copied = "true";
  button.replaceChildren(wide ? "Copied" : icon("done"));
  setTimeout(() => {
    button.replaceChildren(...former);
    delete button.dataset.copied;
  }, 1500);
}

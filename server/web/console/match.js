/** Where a search's text stands in another text. */

/**
 * Cuts a text into what matches and what does not, in order; upper and lower case are the same.
 * @param {string} text
 * @param {string} query
 * @returns {{text: string, match: boolean}[]}
 */
export function matches(text, query) {
  const wanted = query.trim();
  if (!wanted) return text ? [{ text, match: false }] : [];
  const pattern = new RegExp(wanted.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu");
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > end) parts.push({ text: text.slice(end, found.index), match: false });
    end = found.index + found[0].length;
    parts.push({ text: text.slice(found.index, end), match: true });
  }
  if (end < text.length) parts.push({ text: text.slice(end), match: false });
  return parts;
}

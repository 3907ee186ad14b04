// Texts for the tests of Markdown.

/** A bit of everything that is formatted. */
export const EVERYTHING = `# Title *x*

Hello **bold** and *emph*, _under_ and __score__, \`code\`, [link](https://example.org/a "t"), ![alt](https://x.example/z.png) ~~gone~~.
Line two <https://auto.example/x> &amp; https://bare.example/a_b. A \\*star\\*, 2 * 3 * 4, snake_case_name, AT&T.

- one
- two
  - nested **x**
- [ ] task
- [x] done

1. a

2. b
3) other

| a | b |
|---|:-:|
| *1* | 2 |
| \`x\` | y \\| z |

> quote
> - x

\`\`\`python
def f():
    # not a heading
    return [1]
\`\`\`

    indented

Setext
======

Items:
- with no blank line before

* * *

<b>html</b> and **bold *both* again** 😀.

2024 was a year. \`a\`\`b\` and \`\`c\`d\`\`.
`;

/** Definitions of links reach back to where they are used. */
export const REFERENCES = `See [the page][p], [p], [other] and ![pic][i].

Then more.

[p]: https://page.example/ "P"
[i]: https://pic.example/a.png
'no title'

[other]:
  https://other.example/
  'a
  title'

Last [p] and [nowhere].

[p]: https://late.example/
`;

/** Lines out of which odd documents are made. */
export const LINES = [
  "a", "text here", "- a", "- b", "  - c", "* d", "1. x", "2. y", "10) z", "> q", ">", "> - m", "# h", "## h2 ##", "===",
  "---", "- - -", "***", "```", "```js", "~~~", "    code", "\tcode", "| a | b |", "|---|---|", "|:-:|", "a|b", "-|-",
  "| c", "", "[foo]: /url", "[foo]: http://x.example/", "'title", "title'", "\"t\"", "[foo]", "[foo][bar]",
  "[bar]: http://b.example 'x", "[bar]:", "http://c.example", "*em", "em*", "**st", "`co", "de`", "<b>", "<!--", "-->",
  "  a", "   b", "      deep", "- [ ] t", "-", "+", "1.", "\\", "&amp;", "![i](http://i.example/)",
  "[l](http://l.example/ 't')", "[l](http://l", "  ",
];

/** The same numbers for the same seed. @param {number} seed */
export function dice(seed) {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
}

/** What a page shows of trees, as text. @param {any} tree @returns {string} */
export function textOf(tree) {
  if (Array.isArray(tree)) return tree.map(textOf).join("");
  if (typeof tree === "string") return tree;
  return tree.tag === "code-block" ? tree.text : textOf(tree.children);
}

/** As HTML, to be read by people. @param {any} tree @returns {string} */
export function html(tree) {
  if (Array.isArray(tree)) return tree.map(html).join("");
  if (typeof tree === "string") return tree;
  if (tree.tag === "code-block") return `<pre ${tree.language}>${tree.text}</pre>`;
  const attributes = Object.entries(tree.attributes ?? {}).map(([name, value]) => ` ${name}="${value}"`).join("");
  return `<${tree.tag}${attributes}>${html(tree.children)}</${tree.tag}>`;
}

/** @param {any} tree @returns {any[]} all elements in it */
export function elements(tree) {
  if (Array.isArray(tree)) return tree.flatMap(elements);
  return typeof tree === "string" ? [] : [tree, ...elements(tree.children ?? [])];
}

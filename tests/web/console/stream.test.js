// A text that grows: the end of it looks right at any moment, and at last it looks as if it had come at once.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { MAX_FORMATTED, MarkdownStream } from "../../../server/web/console/stream.js";
import { EVERYTHING, LINES, REFERENCES, dice, elements, html, textOf } from "./documents.js";

const atOnce = (text) => new MarkdownStream().write(text, true);
const open = (text) => html(new MarkdownStream().write(text, false));

describe("a text that grows", () => {
  for (const [name, text] of Object.entries({ EVERYTHING, REFERENCES, CRLF: EVERYTHING.replace(/\n/g, "\r\n") })) {
    it(`is at last what it would have been at once, wherever it is split: ${name}`, () => {
      const wanted = atOnce(text);
      for (let at = 0; at <= text.length; at += 1) {
        const stream = new MarkdownStream();
        stream.write(text.slice(0, at), false);
        assert.deepEqual(stream.write(text, true), wanted, `split at ${at}`);
      }
      const stream = new MarkdownStream();
      for (const [index] of [...text].entries()) stream.write(text.slice(0, index), false);
      assert.deepEqual(stream.write(text, true), wanted);
    });
  }

  it("is so for any odd document", () => {
    const random = dice(2026);
    const pick = (from) => from[Math.floor(random() * from.length)];
    for (let run = 0; run < 3_000; run += 1) {
      const lines = [...Array.from({ length: 6 }, () => pick(LINES)), ""];
      let text = "";
      for (let left = 1 + Math.floor(random() * 14); left > 0; left -= 1) text += pick(lines) + pick(["\n", "\n", "\n", "\r\n", " "]);
      const stream = new MarkdownStream();
      for (let at = 0; at <= text.length; at += 1 + Math.floor(random() * 4)) stream.write(text.slice(0, at), false);
      assert.deepEqual(stream.write(text, true), atOnce(text), JSON.stringify(text));
    }
  });

  it("never shrinks", () => {
    const stream = new MarkdownStream();
    let before = 0;
    for (let at = 0; at <= EVERYTHING.length; at += 1) {
      const { length } = textOf(stream.write(EVERYTHING.slice(0, at), false));
      assert.ok(length >= before, `after ${JSON.stringify(EVERYTHING.slice(at - 30, at))}`);
      before = length;
    }
  });

  it("leaves what is finished alone", () => {
    const stream = new MarkdownStream();
    /** @type {any[]} */
    let finished = [];
    for (let at = 0; at <= EVERYTHING.length; at += 1) {
      const trees = stream.write(EVERYTHING.slice(0, at), false);
      for (const [index, tree] of finished.entries()) assert.equal(trees[index], tree);
      finished = trees.slice(0, stream.finished);
    }
    assert.ok(finished.length > 10);
  });

  it("reads little more than what is new", () => {
    const block = "The quick *brown* fox jumps over the **lazy** dog, see https://example.org/x.\n\n";
    const stream = new MarkdownStream();
    let open = 0;
    for (let at = 0; at < 100_000; at += 1_000) {
      const trees = stream.write(block.repeat(1_400).slice(0, at), false);
      open = Math.max(open, trees.length - stream.finished);
    }
    assert.ok(open <= 2, `${open} blocks are open`);
  });

  it("starts afresh when it is another", () => {
    const stream = new MarkdownStream();
    stream.write("# One\n\nand *more", false);
    assert.deepEqual(stream.write("Two\n\n- b", true), atOnce("Two\n\n- b"));
    assert.deepEqual(stream.write("Three", true), atOnce("Three"));
  });

  it("is formatted up to a length, and shown beyond", () => {
    const text = "word *word* word\n\n".repeat(15_000);
    const trees = atOnce(text);
    assert.equal(trees.at(-1).attributes.class, "plain");
    assert.ok(textOf(trees.slice(0, -1)).length > MAX_FORMATTED / 2);
    assert.ok(trees.at(-1).children[0].endsWith("word *word* word\n\n"));
    const stream = new MarkdownStream();
    for (let at = 190_000; at < text.length; at += 7_000) stream.write(text.slice(0, at), false);
    assert.deepEqual(stream.write(text, true), trees);
    const endless = "😀".repeat(150_000);
    assert.equal(textOf(atOnce(endless)), endless);
    assert.ok(textOf(atOnce(endless).at(-1)).isWellFormed());
  });
});

describe("the end of a text", () => {
  for (const [text, wanted] of Object.entries({
    "some **bol": "<p>some <strong>bol</strong></p>",
    "some **bold*": "<p>some <strong>bold</strong></p>",
    "some *it **both": "<p>some <em>it <strong>both</strong></em></p>",
    "some `co": "<p>some <code>co</code></p>",
    "some **b `co": "<p>some <strong>b <code>co</code></strong></p>",
    "some ``co`d": "<p>some <code>co`d</code></p>",
    "some ~~go": "<p>some <s>go</s></p>",
    "some *": "<p>some</p>",
    "2 * 3": "<p>2 * 3</p>",
    "snake_case": "<p>snake_case</p>",
    "a \\*b": "<p>a *b</p>",
    "see [the pa": "<p>see the pa</p>",
    "see [the page](https://exa": "<p>see the page</p>",
    "see ![a pict": "<p>see a pict</p>",
    "see <https://exa": '<p>see <a href="https://exa/" title="exa">https://exa</a></p>',
    "an array[i": "<p>an arrayi</p>",
    "AT&T": "<p>AT</p>",
    "text\n-": "<p>text</p>",
    "text\n---": "<p>text</p>",
    "- a\n-": "<ul><li>a</li></ul>",
    "1": "",
    "1. a\n2": "<ol><li>a</li></ol>",
    "- [ ": "",
    "#": "",
    "# He": '<h3 data-level="1">He</h3>',
    "> ": "",
    "```py": "",
    "```py\nx = `": "<pre py>x = `</pre>",
    "```py\nx\n``": "<pre py>x</pre>",
    "| a | *b": '<div class="table"><table><thead><tr><th>a</th><th><em>b</em></th></tr></thead></table></div>',
    "| a | b |\n|--": '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr></thead></table></div>',
    "```\n| a |": "<pre >| a |</pre>",
    "```\n| a |\n": "<pre >| a |</pre>",
    "[x]: https://a.exam": "",
  })) {
    it(`is taken for what was meant: ${JSON.stringify(text)}`, () => assert.equal(open(text), wanted));
  }

  it("is shown as it is when it is the end", () => {
    for (const text of ["some **bol", "1", "-", "see [the pa", "| a | b |", "text\n-"]) {
      assert.deepEqual(atOnce(text), new MarkdownStream().write(text, true));
      assert.ok(elements(atOnce(text)).every((element) => element.tag !== "strong"));
    }
    assert.equal(html(atOnce("| a | b |")), "<p>| a | b |</p>");
    assert.equal(html(atOnce("some **bol")), "<p>some **bol</p>");
  });

  it("is not mended behind a blank line", () => assert.equal(open("some *star\n\n"), "<p>some *star</p>"));
});

// Markdown into trees: what is shown, and what never is.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { linkTarget, parse } from "../../../server/web/console/markdown.js";
import { MarkdownStream } from "../../../server/web/console/stream.js";
import { EVERYTHING, elements, html, textOf } from "./documents.js";

const trees = (text) => parse(text).map((block) => block.tree).filter(Boolean);
const shown = (text) => html(trees(text));

describe("Markdown", () => {
  it("has what models write", () => {
    const tags = new Set(elements(trees(EVERYTHING)).map((element) => element.tag));
    for (const tag of ["h3", "p", "strong", "em", "code", "a", "s", "br", "ul", "ol", "li", "input", "table", "th", "td", "blockquote", "code-block", "hr"]) {
      assert.ok(tags.has(tag), tag);
    }
  });

  it("keeps headings below those of the page", () => {
    assert.equal(shown("# a\n\n#### b\n\n###### c"), '<h3 data-level="1">a</h3><h6 data-level="4">b</h6><h6 data-level="6">c</h6>');
  });

  it("keeps line breaks", () => assert.equal(shown("a\nb  \nc"), "<p>a<br></br>b<br></br>c</p>"));

  it("takes whole addresses for links, and nothing else", () => {
    assert.equal(elements(trees("see https://a.example/x. Not readme.md, a@b.example, www.c.example")).filter((e) => e.tag === "a").length, 1);
  });

  it("knows tasks", () => {
    const [list] = trees("- [ ] a\n- [x] b\n- [y] c");
    assert.deepEqual(list.children.map((item) => item.attributes?.class), ["task", "task", undefined]);
    assert.deepEqual(elements(list).filter((e) => e.tag === "input").map((e) => e.attributes["data-checked"]), ["false", "true"]);
  });

  it("aligns cells by an attribute, as the page allows no styles", () => {
    assert.match(shown("|a|\n|-:|\n|b|"), /<th data-align="right">a<\/th>.*<td data-align="right">b<\/td>/);
  });

  it("takes the language of a fence from its first word", () => {
    assert.equal(shown("```js {1,2} title=x\na\n```"), "<pre js>a</pre>");
  });

  it("shows raw HTML as text", () => {
    for (const raw of ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a <b onclick=x>b</b>", "<!-- c -->", "| <i>x</i> |\n|---|\n| <img src=x> |"]) {
      for (const element of elements(trees(raw))) assert.ok(["p", "table", "thead", "tbody", "tr", "th", "td", "div"].includes(element.tag), raw);
    }
    assert.equal(textOf(trees("<script>alert(1)</script>")), "<script>alert(1)</script>");
  });

  it("shows images as links, so that looking at one asks nobody", () => {
    assert.equal(shown("![a *b*](https://i.example/x.png)"), '<p><a href="https://i.example/x.png" title="i.example" class="image">a b</a></p>');
    assert.equal(elements(trees("![](data:image/png;base64,AAAA) ![x](//h/i.png)")).filter((e) => e.tag === "a").length, 0);
  });

  it("puts no link into a link", () => {
    assert.equal(shown("[![pic](https://i.example/x.png)](https://a.example/)"), '<p><a href="https://a.example/" title="a.example">pic</a></p>');
  });

  it("never loses what is nested too deeply", () => {
    for (const deep of [`${"> ".repeat(300)}needle`, `${"- ".repeat(300)}needle`, `${"1. ".repeat(200)}needle`]) {
      assert.ok(textOf(trees(`before\n\n${deep}\n\nafter`)).includes("needle"));
    }
    const emphasis = `${"*a ".repeat(2000)}${"b* ".repeat(2000)}`;
    const depth = (tree) => (typeof tree === "string" ? 0 : 1 + Math.max(0, ...tree.children.map(depth)));
    assert.ok(depth(trees(emphasis)[0]) < 30);
    assert.equal(textOf(trees(emphasis)).replace(/\*/g, ""), `${"a ".repeat(2000)}${"b ".repeat(2000)}`.trim());
  });
});

describe("a link", () => {
  it("leads to the web or to mail", () => {
    assert.deepEqual(linkTarget("https://user.example/a?b#c"), { href: "https://user.example/a?b#c", place: "user.example" });
    assert.deepEqual(linkTarget("HTTP://A.Example:8080"), { href: "http://a.example:8080/", place: "a.example:8080" });
    assert.deepEqual(linkTarget("mailto:ada@example.org"), { href: "mailto:ada@example.org", place: "ada@example.org" });
  });

  it("names the host that it leads to, whatever it looks like", () => {
    assert.equal(linkTarget("https://аpple.example/")?.place, "xn--pple-43d.example");
    assert.equal(linkTarget("https://bank.example@evil.example/"), null);
    assert.match(shown('[x](https://evil.example "https://bank.example")'), /title="evil.example: https:\/\/bank.example"/);
  });

  for (const href of [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)", " javascript:alert(1)",
    "\u0001javascript:alert(1)", "javascript&#58;alert(1)", "javascript&colon;alert(1)", "&#106;avascript:alert(1)",
    "data:text/html,<script>alert(1)</script>", "vbscript:x", "file:///etc/passwd", "blob:https://a.example/x",
    "//evil.example/x", "/relative", "#hash", "x", "https:", "https://", "http:/\\", "about:blank", "ws://a.example/",
  ]) {
    it(`does not lead to ${JSON.stringify(href)}`, () => {
      for (const text of [`[a](${href})`, `[a](<${href}>)`, `<${href}>`, `[a]: ${href}\n\n[a]`, `![a](${href})`, `[a](${href} "t")`]) {
        for (const { attributes } of elements(trees(text)).filter((element) => element.tag === "a")) {
          assert.match(attributes.href, /^(https?:\/\/[^/]|mailto:)/, text);
        }
      }
    });
  }
});

describe("a text that was made to be slow", () => {
  const n = 100_000;
  const cases = {
    "[": "[".repeat(n), "[]": "[".repeat(n / 2) + "]".repeat(n / 2), "[](": "[](([]((".repeat(n / 8), "[a](b": "[a](b".repeat(n / 5),
    "![": "![".repeat(n / 2), "*": "*".repeat(n), "*a": "*a ".repeat(n / 3), "**a *b": "**a *b ".repeat(n / 7), "*a_": "*foo_".repeat(n / 5),
    "_a_": "_a_".repeat(n / 3), "`": Array.from({ length: 400 }, (_, i) => `e${"`".repeat(i)}`).join(""), "~~a": "~~a ".repeat(n / 4),
    "> >": "> ".repeat(n / 2), "- -": `${"- ".repeat(n / 2)}a`, "1. 1.": `${"1. ".repeat(n / 3)}a`, "> -": `${"> - ".repeat(n / 4)}a`,
    "nested list": Array.from({ length: 400 }, (_, i) => `${" ".repeat(i * 2)}- a`).join("\n"), "<": "<".repeat(n), "<a ": "<a ".repeat(n / 3),
    "<!-": "a <!-".repeat(n / 5), "&": "&".repeat(n), "a@": "a@".repeat(n / 2), "http://": "http://a".repeat(n / 8), "|": "|".repeat(n),
    "a table": `${"|a".repeat(n / 4)}\n${"|-".repeat(n / 4)}\n${"|\n".repeat(n / 4)}`, "spaces": `a${" ".repeat(n)}b`, "\\": "\\".repeat(n),
    "definitions": "[a]: b\n".repeat(n / 7), "a title": `[a]: b '${"x\n".repeat(n / 2)}`, "setext": "a\n".repeat(n / 2), "```": "```\n".repeat(n / 4),
  };
  for (const [name, text] of Object.entries(cases)) {
    it(`is not: ${name}`, () => {
      // Time of the processor, as the machine may have other things to do; what is quadratic takes minutes.
      const begun = process.cpuUsage();
      new MarkdownStream().write(text, true);
      const stream = new MarkdownStream();
      for (let end = text.length - 3; end <= text.length; end += 1) stream.write(text.slice(0, end), false);
      const { user, system } = process.cpuUsage(begun);
      assert.ok(user + system < 8e6, `${(user + system) / 1e6} s`);
    });
  }
});

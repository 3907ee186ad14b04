// What helps a person to decide about a call: its arguments against its schema, forms, and what changed.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { brief, count, diff } from "../../../server/web/console/diff.js";
import { fieldsOf, fromJson, problems, sentence, valueOf } from "../../../server/web/console/schema.js";
import { dice } from "./documents.js";

const WRITE = {
  type: "object", required: ["path", "content"], additionalProperties: false,
  properties: {
    path: { type: "string", minLength: 1, pattern: "^[^/]", description: "Where" }, content: { type: "string" },
    encoding: { enum: ["utf-8", "latin-1"] }, mode: { type: "integer", minimum: 0, maximum: 511 }, backup: { type: "boolean" },
    tags: { type: "array", items: { type: "string" }, maxItems: 2 },
  },
};
const said = (schema, value) => problems(schema, value).map(sentence);

describe("arguments", () => {
  it("that fit their schema have no problem", () => {
    assert.deepEqual(said(WRITE, { path: "a", content: "", encoding: "utf-8", mode: 420, backup: true, tags: ["x"] }), []);
    for (const anything of [true, null, undefined, {}, "no schema", { type: 5 }]) assert.deepEqual(said(anything, { a: 1 }), []);
  });

  it("say what is wrong with them, and where", () => {
    assert.deepEqual(said(WRITE, { path: "/etc", content: 5, encoding: "x", mode: 1.5, tags: ["a", 2, "c"], more: 1 }), [
      "path must match ^[^/]", "content must be a text", 'encoding must be one of "utf-8", "latin-1"', "mode must be a whole number",
      "tags must have at most 2 items", "tags[1] must be a text", "more is not known to this tool",
    ]);
    assert.deepEqual(said(WRITE, { path: "" }), ["content is missing", "path must not be empty", "path must match ^[^/]"]);
    assert.deepEqual(said(WRITE, { path: "a", content: "", mode: 512 }), ["mode must be at most 511"]);
    assert.deepEqual(said(WRITE, []), ["It must be an object"]);
    assert.deepEqual(said({ type: ["string", "null"] }, 1), ["It must be a text or null"]);
    assert.deepEqual(said({ exclusiveMinimum: 0, exclusiveMaximum: 1, multipleOf: 0.1 }, 0.3), []);
    assert.deepEqual(said({ exclusiveMinimum: 0, multipleOf: 2 }, 0), ["It must be more than 0"]);
    assert.deepEqual(said({ const: { a: [1] } }, { a: [1] }), []);
    assert.deepEqual(said({ const: 1 }, 2), ["It must be 1"]);
    assert.deepEqual(said({ uniqueItems: true, minItems: 1 }, [{ a: 1 }, { a: 1 }]), ["It must not have the same item twice"]);
    assert.deepEqual(said({ additionalProperties: { type: "number" }, maxProperties: 1 }, { a: "x", b: 1 }), ["It must have at most 1 fields", "a must be a number"]);
    assert.deepEqual(said({ anyOf: [{ type: "string" }, { type: "number" }] }, true), ["It is none of what is allowed"]);
    assert.deepEqual(said({ allOf: [{ required: ["a"] }], oneOf: [{}] }, {}), ["a is missing"]);
    assert.deepEqual(said({ properties: { a: false } }, { a: 1 }), ["a is not allowed"]);
  });

  it("count characters as people do", () => {
    assert.deepEqual(said({ maxLength: 2 }, "👩👩"), []);
    assert.deepEqual(said({ minLength: 3 }, "👩👩"), ["It must have at least 3 characters"]);
  });

  it("survive schemas that are made to hurt", () => {
    const deep = {};
    deep.properties = { a: deep };
    deep.allOf = [deep];
    assert.ok(problems(deep, { a: { a: { a: 1 } } }).length >= 0);
    assert.deepEqual(said({ pattern: "(" }, "x"), [], "no pattern of ours");
    assert.deepEqual(said({ pattern: "^(a+)+$" }, "a".repeat(3000)), [], "too long to try");
    assert.equal(problems({ items: { type: "string" } }, Array(1000).fill(1)).length, 20);
    assert.deepEqual(said({ properties: { toString: { type: "number" } } }, {}), []);
    assert.deepEqual(said({ required: ["constructor"] }, {}), ["constructor is missing"]);
  });
});

describe("a form", () => {
  it("has a field for each property, by its kind, and for what the schema does not name", () => {
    const fields = fieldsOf(WRITE, { path: "a", content: "x", extra: [1] });
    assert.deepEqual(fields.map(({ name, kind, required }) => [name, kind, required]), [
      ["path", "text", true], ["content", "lines", true], ["encoding", "choice", false], ["mode", "number", false],
      ["backup", "boolean", false], ["tags", "json", false], ["extra", "json", false],
    ]);
    assert.equal(fields[0].about, "Where");
    assert.equal(fieldsOf({ type: "object" }, {}), null);
    assert.equal(fieldsOf(WRITE, "text"), null);
    assert.equal(fieldsOf(undefined, {}), null);
    assert.equal(fieldsOf(WRITE, { path: 5 })[0].kind, "json", "what is no text is not made one");
  });

  it("gives values of the schema's types, and leaves out what is empty and may be", () => {
    const field = Object.fromEntries(fieldsOf(WRITE, {}).map((one) => [one.name, one]));
    assert.deepEqual(valueOf(field.path, ""), { value: "" });
    assert.deepEqual(valueOf({ ...field.path, required: false }, ""), {});
    assert.deepEqual(valueOf(field.mode, " 12 "), { value: 12 });
    assert.deepEqual(valueOf(field.mode, ""), {});
    assert.deepEqual(valueOf(field.mode, "x"), { problem: "must be a number" });
    assert.deepEqual(valueOf({ ...field.mode, required: true }, ""), { problem: "is missing" });
    assert.deepEqual(valueOf(field.encoding, "1"), { value: "latin-1" });
    assert.deepEqual([valueOf(field.backup, "true"), valueOf(field.backup, "false"), valueOf(field.backup, "")], [{ value: true }, { value: false }, {}]);
    assert.deepEqual(valueOf(field.tags, '["a"]'), { value: ["a"] });
    assert.match(fromJson("{").problem, /is no JSON/);
  });
});

describe("what changed", () => {
  const shown = (lines) => lines.map(({ kind, text }) => `${{ same: " ", added: "+", removed: "-", gap: "~" }[kind]}${text}`).join("\n");

  it("is said line by line", () => {
    assert.equal(shown(diff("a\nb\nc\n", "a\nx\nc\nd\n")), " a\n-b\n+x\n c\n+d");
    assert.equal(shown(diff("", "a\nb")), "+a\n+b");
    assert.equal(shown(diff("a\n", "")), "-a");
    assert.deepEqual(diff("same\n", "same\n").map((line) => line.kind), ["same"]);
    assert.deepEqual(diff("", ""), []);
    assert.deepEqual(count(diff("a\nb", "b\nc\nd")), { added: 2, removed: 1 });
  });

  it("leads from the one to the other, whatever they are", () => {
    const roll = dice(7);
    const next = (/** @type {number} */ sides) => Math.floor(roll() * sides);
    const text = () => Array.from({ length: 1 + next(30) }, () => "abc"[next(3)]).join("\n");
    for (let round = 0; round < 500; round += 1) {
      const [before, after] = [text(), text()];
      const lines = diff(before, after);
      const without = (kind) => lines.filter((line) => line.kind !== kind).map((line) => line.text).join("\n");
      assert.deepEqual([without("added"), without("removed")], [before, after]);
    }
  });

  it("is found at once, also in texts that have nothing in common", () => {
    const many = (word) => Array.from({ length: 2000 }, (_, index) => `${word} ${index}`).join("\n");
    const begun = performance.now();
    assert.deepEqual(count(diff(many("a"), many("b"))), { added: 2000, removed: 2000 });
    assert.equal(diff(many("a"), many("b").repeat(3)).length > 0, true);
    assert.ok(performance.now() - begun < 10_000);
  });

  it("is shown with a little of what is around it", () => {
    const lines = Array.from({ length: 30 }, (_, index) => `line ${index}`);
    const changed = lines.with(10, "other");
    assert.equal(shown(brief(diff(lines.join("\n"), changed.join("\n")), 1)), "~9 lines as before\n line 9\n-line 10\n+other\n line 11\n~18 lines as before");
    assert.equal(shown(brief(diff("a", "a"))), "~1 line as before");
  });
});

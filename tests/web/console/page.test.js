// The parts of the page that need none: search marks, times, the memory of the event log, colours of code.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { EventBuffer, MOST_CHARACTERS, MOST_EVENTS, kindOf, passes } from "../../../server/web/console/events.js";
import { tokensOf } from "../../../server/web/console/highlight.js";
import { matches } from "../../../server/web/console/match.js";
import { ago, period } from "../../../server/web/console/times.js";

describe("marks of a search", () => {
  const marked = (text, query) => matches(text, query).map((part) => (part.match ? `<${part.text}>` : part.text)).join("");

  it("stand wherever the text does, in upper or lower case", () => {
    assert.equal(marked("The loire and the LOIRE", " Loire "), "The <loire> and the <LOIRE>");
    assert.equal(marked("ÉTÉ", "été"), "<ÉTÉ>");
  });

  it("are those of a text, not of a pattern", () => {
    for (const query of ["a.c", "a\\c", "(", "[", "$", "a|b", "+?", "{2}", "^", "/", "-"]) {
      assert.equal(marked(`x${query}y abc`, query), `x<${query}>y abc`);
    }
  });

  it("are none without a search", () => {
    assert.equal(marked("text", "  "), "text");
    assert.deepEqual(matches("", ""), []);
  });
});

describe("times", () => {
  const now = new Date(2026, 2, 15, 12, 0);
  const at = (...parts) => new Date(...parts).toISOString();

  it("are said as people say them", () => {
    assert.equal(ago(at(2026, 2, 15, 12, 0), now), "now");
    assert.equal(ago(at(2026, 2, 15, 12, 5), now), "now", "a clock that is ahead");
    assert.equal(ago(at(2026, 2, 15, 11, 1), now), "59 min ago");
    assert.match(ago(at(2026, 2, 15, 9, 30), now), /9.30/);
    assert.equal(ago(at(2026, 2, 14, 23, 59), new Date(2026, 2, 15, 1, 30)), "Yesterday");
    assert.match(ago(at(2026, 2, 10, 9, 30), now), /^\p{L}+\.?$/u);
    assert.match(ago(at(2026, 0, 2, 9, 30), now), /2/);
    assert.match(ago(at(2025, 0, 2, 9, 30), now), /2025/);
    assert.equal(ago("nonsense", now), "");
  });

  it("have a heading", () => {
    const days = (count) => period(at(2026, 2, 15 - count, 20, 0), now);
    assert.deepEqual([0, 1, 2, 6, 7, 29, 30, 400].map(days), [
      "Today", "Yesterday", "Previous 7 days", "Previous 7 days", "Previous 30 days", "Previous 30 days", "Older", "Older",
    ]);
    assert.equal(period("nonsense", now), "Undated");
  });
});

describe("the memory of the event log", () => {
  const delta = (text) => ({ event_type: "message_delta", payload: { text } });
  const durable = (seq) => ({ event_type: "message_created", seq, payload: { seq } });

  it("knows what kind an event is", () => {
    assert.deepEqual([durable(1), delta("x"), { event_type: "presence_changed" }, { event_type: "sync" }].map(kindOf), ["durable", "delta", "transient", "control"]);
  });

  it("counts what comes again and again", () => {
    const buffer = new EventBuffer();
    for (const event of [durable(1), durable(2), delta("a"), delta("b"), durable(3), delta("c")]) buffer.add(event);
    assert.deepEqual(buffer.entries.map(({ type, seq, count }) => [type, seq, count]), [
      ["message_created", 1, 1], ["message_created", 2, 1], ["message_delta", null, 2], ["message_created", 3, 1], ["message_delta", null, 1],
    ]);
    assert.equal(buffer.entries[2].event.payload.text, "b");
  });

  it("is bounded in number and in size", () => {
    const buffer = new EventBuffer();
    for (let seq = 1; seq <= MOST_EVENTS + 10; seq += 1) buffer.add(durable(seq));
    assert.deepEqual([buffer.entries.length, buffer.entries[0].seq, buffer.dropped], [MOST_EVENTS, 11, 10]);
    buffer.clear();
    for (let seq = 1; seq <= 30; seq += 1) buffer.add({ ...durable(seq), payload: { text: "x".repeat(250_000) } });
    assert.ok(buffer.entries.reduce((sum, entry) => sum + entry.text.length, 0) <= MOST_CHARACTERS);
    buffer.add({ ...durable(31), payload: { text: "x".repeat(2 * MOST_CHARACTERS) } });
    assert.deepEqual(buffer.entries.map((entry) => entry.seq), [31]);
  });

  it("is filtered by kind, type and text", () => {
    const entry = new EventBuffer().add({ event_type: "message_created", seq: 1, payload: { content: "The Loire" } });
    assert.ok(passes(entry, { kind: "all", text: "" }));
    assert.ok(passes(entry, { kind: "durable", text: " CREATED" }));
    assert.ok(passes(entry, { kind: "all", text: "loire" }));
    assert.ok(!passes(entry, { kind: "delta", text: "" }));
    assert.ok(!passes(entry, { kind: "all", text: "seine" }));
  });
});

describe("colours", () => {
  const coloured = (text, language) => tokensOf(text, language).map(({ kind, start, end }) => `${kind} ${text.slice(start, end)}`);

  it("tell what is what", () => {
    assert.deepEqual(coloured('def f(x):  # hi "no"\n    return "a\\"b" + 12.5e3', "Python"), [
      "keyword def", "comment # hi \"no\"", "keyword return", 'string "a\\"b"', "number 12.5e3",
    ]);
    assert.deepEqual(coloured("const url = 'http://x'; // y", "js"), ["keyword const", "string 'http://x'", "comment // y"]);
    assert.deepEqual(coloured("SELECT 'a' FROM t -- x", "sql"), ["keyword SELECT", "string 'a'", "keyword FROM", "comment -- x"]);
  });

  it("leave languages that are not known as they are", () => {
    for (const language of ["", "brainfuck", "__proto__", "constructor"]) assert.deepEqual(coloured("def f", language), []);
  });

  it("are quick whatever the text", () => {
    const begun = process.cpuUsage();
    for (const language of ["js", "python", "sql", "html"]) {
      for (const part of ['"', "`", "/*", "#", "--", "<!--", "1", "1_", "1e", "a", "\\", '"""', '"\\', "/", " "]) {
        tokensOf(part.repeat(40_000 / part.length), language);
      }
    }
    const { user, system } = process.cpuUsage(begun);
    assert.ok(user + system < 5e6, `${(user + system) / 1e6} s`);
  });
});

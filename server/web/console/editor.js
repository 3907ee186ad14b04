/** An editor for a call's arguments: a form where the tool's schema is simple, JSON always, and what was changed. */

import { pretty } from "./describe.js";
import { diff } from "./diff.js";
import { make } from "./dom.js";
import { diffPart } from "./parts.js";
import { equal, fieldsOf, fromJson, problems, sentence, valueOf } from "./schema.js";

let editors = 0;

export class ArgumentEditor {
  #schema;
  #original;
  /** The arguments as they stand; undefined while they are no JSON. @type {any} */
  value;
  /** What speaks against sending them. @type {string[]} */
  problems = [];
  #id = `editor-${(editors += 1)}`;
  #body = make("div", { class: "editor-body" });
  #said = make("ul", { class: "editor-problems", role: "status", "data-testid": "editor-problems" });
  #change = make("div", { class: "editor-change" });
  #changed;
  /** @type {{field: import("./schema.js").Field, input: any}[]} */
  #inputs = [];

  /**
   * @param {any} schema the tool's
   * @param {any} original the agent's arguments
   * @param {(editor: ArgumentEditor) => void} changed
   */
  constructor(schema, original, changed) {
    this.#schema = schema;
    this.#original = original;
    this.#changed = changed;
    this.value = original;
    const fields = fieldsOf(schema, original);
    this.node = make("div", { class: "editor", "data-testid": "editor" });
    if (fields) this.node.append(this.#kinds());
    this.node.append(this.#body, this.#said, this.#change);
    if (fields) this.#asForm(fields);
    else this.#asJson();
    this.#look();
  }

  /** Whether it differs from what the agent wrote. */
  get edited() {
    return this.value !== undefined && !equal(this.value, this.#original);
  }

  focus() {
    this.#body.querySelector("input, textarea, select")?.focus();
  }

  #kinds() {
    const choice = (/** @type {string} */ name, /** @type {string} */ kind, /** @type {boolean} */ checked) => {
      const input = make("input", { type: "radio", name: `${this.#id}-kind`, value: kind });
      input.checked = checked;
      input.addEventListener("change", () => this.#switch(kind));
      return make("label", {}, input, name);
    };
    return make("fieldset", { class: "editor-kinds" }, make("legend", { class: "out-of-sight" }, "Edit as"), choice("Form", "form", true), choice("JSON", "json", false));
  }

  /** What was written goes along. @param {string} kind */
  #switch(kind) {
    const fields = kind === "form" ? fieldsOf(this.#schema, this.value) : null;
    if (kind === "form" && !fields) {
      // What stands there fits no form, and must not be lost.
      for (const radio of this.node.querySelectorAll("[type=radio]")) radio.checked = radio.value === "json";
      return;
    }
    if (fields) this.#asForm(fields);
    else this.#asJson();
    this.#look();
  }

  #asJson() {
    const text = this.value === undefined ? "" : pretty(this.value);
    const field = make("textarea", {
      class: "json", rows: String(Math.min(24, text.split("\n").length + 1)), spellcheck: "false", "aria-label": "Arguments as JSON",
      "aria-describedby": `${this.#id}-said`, "data-testid": "editor-json",
    });
    field.value = text;
    field.addEventListener("input", () => {
      const { value, problem } = fromJson(field.value);
      this.value = value;
      this.#look(problem === undefined ? [] : [`It ${problem}`]);
    });
    this.#inputs = [];
    this.#body.replaceChildren(field);
  }

  /** @param {import("./schema.js").Field[]} fields */
  #asForm(fields) {
    this.#inputs = fields.map((field) => ({ field, input: this.#input(field) }));
    this.#body.replaceChildren(...this.#inputs.map(({ field, input }) => {
      const name = make("label", { for: input.id }, field.name, ...(field.required ? [] : [make("span", { class: "optional" }, " optional")]));
      const about = field.about ? [make("p", { class: "hint", id: `${input.id}-about` }, field.about)] : [];
      if (field.about) input.setAttribute("aria-describedby", `${input.id}-about`);
      return make("div", { class: "field" }, name, input, ...about);
    }));
  }

  /** @param {import("./schema.js").Field} field */
  #input(field) {
    const { name, kind, choices } = field;
    const id = `${this.#id}-${name.replace(/\W/g, "-")}`;
    const value = Object.hasOwn(this.value ?? {}, name) ? this.value[name] : undefined;
    const marks = { id, "data-field": name };
    let input;
    if (kind === "choice" || kind === "boolean") {
      const all = kind === "choice" ? choices.map((one, at) => [String(at), String(one), one]) : [["true", "yes", true], ["false", "no", false]];
      const none = value === undefined || !field.required ? [make("option", { value: "" }, "–")] : [];
      input = make("select", marks, ...none, ...all.map(([key, label]) => make("option", { value: key }, label)));
      input.value = all.find(([, , one]) => equal(one, value))?.[0] ?? "";
    } else if (kind === "text" || kind === "number") {
      input = make("input", { ...marks, type: "text", autocomplete: "off", spellcheck: "false", ...(kind === "number" && { inputmode: "decimal" }) });
      input.value = value === undefined ? "" : String(value);
    } else {
      const text = kind === "lines" ? value ?? "" : value === undefined ? "" : pretty(JSON.stringify(value));
      input = make("textarea", { ...marks, spellcheck: "false", class: "json", rows: String(Math.min(16, Math.max(2, text.split("\n").length))) });
      input.value = text;
    }
    input.addEventListener("input", () => this.#read());
    return input;
  }

  /** Takes the form's fields over. */
  #read() {
    /** @type {Record<string, any>} */
    const value = {};
    const said = [];
    for (const { field, input } of this.#inputs) {
      const given = valueOf(field, input.value);
      // An empty text that was there before is one, and not nothing.
      const kept = given.value === undefined && input.value === "" && this.#original?.[field.name] === "" ? { value: "" } : given;
      if (kept.problem) said.push(`${field.name} ${kept.problem}`);
      else if ("value" in kept) Object.defineProperty(value, field.name, { value: kept.value, enumerable: true, writable: true, configurable: true });
    }
    this.value = value;
    this.#look(said);
  }

  /** @param {string[]} [said] what could not even be read */
  #look(said = []) {
    const found = this.value === undefined ? [] : problems(this.#schema, this.value);
    if (!said.length && typeof this.value !== "object") said = ["The arguments must be an object"];
    const unread = new Set(said.map((text) => text.split(" ")[0]));
    this.problems = [...said, ...found.filter(({ path }) => !unread.has(String(path[0]))).map(sentence)];
    for (const { field, input } of this.#inputs) {
      const bad = unread.has(field.name) || found.some(({ path }) => path[0] === field.name);
      input.setAttribute("aria-invalid", String(bad));
    }
    this.#said.id = `${this.#id}-said`;
    this.#said.replaceChildren(...this.problems.map((text) => make("li", {}, text)));
    this.#change.replaceChildren(...(this.edited ? [diffPart("What you change", diff(...this.#texts()))] : []));
    this.#changed(this);
  }

  /** Both as text, in the same order of fields; one long text by its own lines. @returns {[string, string]} */
  #texts() {
    const [before, after] = [this.#original, this.value];
    const readable = (/** @type {any} */ value) => pretty(value).replace(/\\n/g, "\n");
    return [readable(sortedLike(before, before)), readable(sortedLike(after, before))];
  }
}

/** @param {any} value @param {any} model */
function sortedLike(value, model) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const order = Object.keys(model ?? {});
  const place = (/** @type {string} */ key) => (order.includes(key) ? order.indexOf(key) : order.length);
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => place(a) - place(b)));
}

/**
 * Arguments against a tool's JSON Schema, as far as helps a person who edits them: the common keywords (2020-12 and
 * draft 7 alike). What is not known here is passed over; the server looks again, and thoroughly.
 */

/** @typedef {{path: (string|number)[], message: string}} Problem */

/** Problems told at once. */
const MOST = 20;
/** Schemas in schemas that are followed. */
const DEEPEST = 32;
/** Characters of a text that a pattern is tried on: some patterns take for ever on a long one. */
const LONGEST_MATCHED = 2_000;

/** @param {any} value @returns {string} */
export function typeOf(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value;
}

/** @param {any} value @param {string} type */
function is(value, type) {
  if (type === "integer") return typeof value === "number" && Number.isInteger(value);
  return typeOf(value) === type;
}

/** Whether two JSON values are the same. @param {any} a @param {any} b @returns {boolean} */
export function equal(a, b) {
  if (a === b) return true;
  if (typeOf(a) !== typeOf(b) || typeof a !== "object" || a === null) return false;
  const [left, right] = [Object.keys(a), Object.keys(b)];
  return left.length === right.length && left.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}

/**
 * @param {any} schema anything; what is no schema allows everything
 * @param {any} value
 * @returns {Problem[]} none: it may be sent
 */
export function problems(schema, value) {
  /** @type {Problem[]} */
  const found = [];
  visit(schema, value, [], found, 0);
  return found.slice(0, MOST);
}

/** @param {any} schema @param {any} value @param {(string|number)[]} path @param {Problem[]} found @param {number} depth */
function visit(schema, value, path, found, depth) {
  if (found.length >= MOST || depth > DEEPEST || schema === true || schema === null || schema === undefined) return;
  const tell = (/** @type {string} */ message) => found.push({ path, message });
  if (schema === false) {
    tell("is not allowed");
    return;
  }
  if (typeof schema !== "object") return;
  const types = [schema.type].flat().filter((type) => typeof type === "string");
  if (types.length && !types.some((type) => is(value, type))) {
    tell(`must be ${types.map(article).join(" or ")}`);
    return;
  }
  if ("const" in schema && !equal(schema.const, value)) tell(`must be ${JSON.stringify(schema.const)}`);
  if (Array.isArray(schema.enum) && !schema.enum.some((/** @type {any} */ one) => equal(one, value))) {
    tell(`must be one of ${schema.enum.map((/** @type {any} */ one) => JSON.stringify(one)).join(", ")}`);
  }
  if (typeof value === "number") number(schema, value, tell);
  else if (typeof value === "string") text(schema, value, tell);
  else if (Array.isArray(value)) array(schema, value, path, found, depth, tell);
  else if (typeof value === "object" && value !== null) object(schema, value, path, found, depth, tell);
  combined(schema, value, path, found, depth, tell);
}

/** @type {Record<string, string>} */
const ARTICLES = { integer: "a whole number", number: "a number", string: "a text", boolean: "true or false", null: "null", array: "a list", object: "an object" };
/** @param {string} type */
const article = (type) => ARTICLES[type] ?? type;

/** @param {any} schema @param {number} value @param {(message: string) => void} tell */
function number(schema, value, tell) {
  const { minimum, maximum, exclusiveMinimum: above, exclusiveMaximum: below, multipleOf: step } = schema;
  if (typeof minimum === "number" && value < minimum) tell(`must be at least ${minimum}`);
  if (typeof maximum === "number" && value > maximum) tell(`must be at most ${maximum}`);
  if (typeof above === "number" && value <= above) tell(`must be more than ${above}`);
  if (typeof below === "number" && value >= below) tell(`must be less than ${below}`);
  // Decimal fractions are none in binary: 0.3 is a multiple of 0.1.
  if (typeof step === "number" && step > 0 && Math.abs(value / step - Math.round(value / step)) > 1e-9) tell(`must be a multiple of ${step}`);
}

/** @param {any} schema @param {string} value @param {(message: string) => void} tell */
function text(schema, value, tell) {
  const { minLength, maxLength, pattern } = schema;
  const length = [...value].length;
  if (minLength > length) tell(minLength === 1 ? "must not be empty" : `must have at least ${minLength} characters`);
  if (maxLength < length) tell(`must have at most ${maxLength} characters`);
  if (typeof pattern !== "string" || value.length > LONGEST_MATCHED) return;
  try {
    if (!new RegExp(pattern, "u").test(value)) tell(`must match ${pattern}`);
  } catch {
    // Another dialect of patterns: the server's concern.
  }
}

/** @param {any} schema @param {any[]} value @param {(string|number)[]} path @param {Problem[]} found @param {number} depth @param {(message: string) => void} tell */
function array(schema, value, path, found, depth, tell) {
  const { minItems, maxItems, uniqueItems, items, prefixItems = [] } = schema;
  if (minItems > value.length) tell(`must have at least ${minItems} ${minItems === 1 ? "item" : "items"}`);
  if (maxItems < value.length) tell(`must have at most ${maxItems} ${maxItems === 1 ? "item" : "items"}`);
  if (uniqueItems && value.length <= 200 && value.some((one, at) => value.slice(0, at).some((former) => equal(former, one)))) {
    tell("must not have the same item twice");
  }
  for (const [at, one] of value.entries()) visit(prefixItems[at] ?? items, one, [...path, at], found, depth + 1);
}

/** @param {any} schema @param {any} value @param {(string|number)[]} path @param {Problem[]} found @param {number} depth @param {(message: string) => void} tell */
function object(schema, value, path, found, depth, tell) {
  const properties = schema.properties ?? {};
  for (const name of schema.required ?? []) {
    if (!Object.hasOwn(value, name)) found.push({ path: [...path, name], message: "is missing" });
  }
  const { minProperties, maxProperties, additionalProperties: rest, patternProperties } = schema;
  const size = Object.keys(value).length;
  if (minProperties > size) tell(`must have at least ${minProperties} fields`);
  if (maxProperties < size) tell(`must have at most ${maxProperties} fields`);
  for (const [name, one] of Object.entries(value)) {
    if (Object.hasOwn(properties, name)) visit(properties[name], one, [...path, name], found, depth + 1);
    else if (rest === false && !patternProperties) found.push({ path: [...path, name], message: "is not known to this tool" });
    else if (typeof rest === "object") visit(rest, one, [...path, name], found, depth + 1);
  }
}

/** @param {any} schema @param {any} value @param {(string|number)[]} path @param {Problem[]} found @param {number} depth @param {(message: string) => void} tell */
function combined({ allOf, anyOf, oneOf }, value, path, found, depth, tell) {
  for (const one of Array.isArray(allOf) ? allOf : []) visit(one, value, path, found, depth + 1);
  for (const choice of [anyOf, oneOf]) {
    if (!Array.isArray(choice) || !choice.length) continue;
    const fits = choice.some((/** @type {any} */ one) => {
      /** @type {Problem[]} */
      const inner = [];
      visit(one, value, path, inner, depth + 1);
      return !inner.length;
    });
    if (!fits) tell("is none of what is allowed");
  }
}

/** @param {Problem} problem @returns {string} like `options.depth must be a number` */
export function sentence({ path, message }) {
  return `${path.length ? path.map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`)).join("").replace(/^\./, "") : "It"} ${message}`;
}

// ------------------------------------------------------------------------------------------------- forms

/**
 * One field of a form. `kind` says what it is edited with; `json` is everything that has no field of its own.
 * @typedef {{name: string, kind: "text"|"lines"|"number"|"choice"|"boolean"|"json", schema: any, required: boolean,
 *   about: string, choices: any[]}} Field
 */

/** Fields that are mostly longer than a line. */
const LONG = /^(content|text|body|code|command|query|message|patch|diff|script|prompt|task|reason)$/i;

/**
 * The fields of a form for a schema, if it is simple enough for one.
 * @param {any} schema
 * @param {any} value what is edited: fields that the schema does not name must not be lost
 * @returns {Field[]|null} null: edit it as JSON
 */
export function fieldsOf(schema, value) {
  const properties = schema?.properties;
  if (typeOf(properties) !== "object" || !Object.keys(properties).length || typeOf(value) !== "object") return null;
  const names = new Set([...Object.keys(properties), ...Object.keys(value)]);
  return [...names].map((name) => {
    const known = Object.hasOwn(properties, name) ? properties[name] : {};
    const { kind, choices } = kindOf(name, known, Object.hasOwn(value, name) ? value[name] : undefined);
    const required = Boolean(schema.required?.includes?.(name));
    return { name, kind, choices, schema: known, required, about: typeof known?.description === "string" ? known.description : "" };
  });
}

/** @param {string} name @param {any} schema @param {any} value @returns {{kind: Field["kind"], choices: any[]}} */
function kindOf(name, schema, value) {
  const fits = (/** @type {string} */ type) => value === undefined || is(value, type);
  if (Array.isArray(schema?.enum) && schema.enum.every((/** @type {any} */ one) => typeof one !== "object" || one === null)) {
    return { kind: "choice", choices: schema.enum };
  }
  const type = schema?.type ?? (value === undefined ? undefined : typeOf(value));
  if (type === "boolean" && fits("boolean")) return { kind: "boolean", choices: [] };
  if ((type === "number" || type === "integer") && fits("number")) return { kind: "number", choices: [] };
  if (type === "string" && fits("string")) {
    const long = LONG.test(name) || (typeof value === "string" && (value.length > 60 || value.includes("\n")));
    return { kind: long ? "lines" : "text", choices: [] };
  }
  return { kind: "json", choices: [] };
}

/**
 * What a person wrote into a field, as a value.
 * @param {Field} field
 * @param {string} written
 * @returns {{value?: any, problem?: string}} without a value the field is left out
 */
export function valueOf({ kind, required, choices }, written) {
  if (kind === "text" || kind === "lines") return written === "" && !required ? {} : { value: written };
  if (written.trim() === "") return required && kind !== "choice" ? { problem: "is missing" } : {};
  if (kind === "choice") return { value: choices[Number(written)] };
  if (kind === "boolean") return { value: written === "true" };
  if (kind === "number") {
    const number = Number(written);
    return Number.isFinite(number) ? { value: number } : { problem: "must be a number" };
  }
  return fromJson(written);
}

/** @param {string} text @returns {{value?: any, problem?: string}} */
export function fromJson(text) {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return { problem: `is no JSON: ${error instanceof Error ? error.message : error}` };
  }
}

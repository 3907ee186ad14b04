// Fetches the libraries that the console in the browser is built on, with their licences, into server/web/vendor.
//
//     make vendor                                # the newest version of each
//     make vendor ARGS="markdown-it@15.0.3"      # this one
//
// Files are taken from the package as they are, so that anybody can compare them; `manifest.json` says what they are.
// Packages come by npm, which checks them against its registry's hashes; which registry that is, is the user's setting.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const VENDOR = fileURLToPath(new URL("../server/web/vendor/", import.meta.url));

/** What is taken of each package: the file for browsers and the source map that tells what was built into it. */
const WANTED = {
  "markdown-it": { file: "dist/browser/markdown-it.esm.min.mjs", as: "markdown-it.js" },
};

/** Unpacks a package; its folder and what npm knows of it. */
function unpacked(spec, scratch) {
  const into = mkdtempSync(join(scratch, "package-"));
  const options = { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], cwd: into };
  const packed = JSON.parse(execFileSync("npm", ["pack", "--json", "--loglevel=error", spec], options));
  const { filename, integrity, name, version } = Object.values(packed).at(-1);
  execFileSync("tar", ["-xzf", filename, "--strip-components=1"], options);
  return { folder: into, integrity, name, version, about: JSON.parse(readFileSync(join(into, "package.json"), "utf8")) };
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Copies a file and says what it is. */
function kept(from, as) {
  const bytes = readFileSync(from);
  writeFileSync(join(VENDOR, as), bytes);
  return { file: as, sha256: sha256(bytes), bytes: bytes.length };
}

/** Copies the licence of an unpacked package. */
function licence({ folder, name, about }) {
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} comes without the text of its licence`);
  return { spdx: about.license, ...kept(join(folder, file), `${name}.LICENSE.txt`) };
}

/** The packages that were built into a file, by its source map. */
function bundledIn(map) {
  const names = JSON.parse(readFileSync(map, "utf8")).sources
    .map((source) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source)?.[1]);
  return [...new Set(names)].filter(Boolean).sort();
}

function vendored(name, version, scratch) {
  const found = unpacked(`${name}@${version}`, scratch);
  const { file, as } = WANTED[name];
  const bundles = bundledIn(join(found.folder, `${file}.map`)).map((inner) => {
    const range = found.about.dependencies[inner];
    return { name: inner, range, licence: licence(unpacked(`${inner}@${range}`, scratch)) };
  });
  return {
    name, version: found.version, integrity: found.integrity, path: file, ...kept(join(found.folder, file), as),
    licence: licence(found), bundles,
  };
}

const chosen = Object.fromEntries(process.argv.slice(2).map((spec) => {
  const at = spec.lastIndexOf("@");
  return at > 0 ? [spec.slice(0, at), spec.slice(at + 1)] : [spec, "latest"];
}));
const unknown = Object.keys(chosen).filter((name) => !(name in WANTED));
if (unknown.length) {
  console.error(`parley: ${unknown.join(", ")}: not among what is vendored (${Object.keys(WANTED).join(", ")})`);
  process.exit(2);
}
const scratch = mkdtempSync(join(tmpdir(), "parley-vendor-"));
try {
  mkdirSync(VENDOR, { recursive: true });
  for (const entry of readdirSync(VENDOR)) if (entry !== "README.md") rmSync(join(VENDOR, entry));
  const libraries = Object.keys(WANTED).map((name) => vendored(name, chosen[name] ?? "latest", scratch));
  writeFileSync(join(VENDOR, "manifest.json"), `${JSON.stringify({ libraries }, null, 2)}\n`);
  for (const { name, version, bytes } of libraries) console.log(`${name} ${version}, ${bytes} bytes`);
} finally {
  rmSync(scratch, { recursive: true });
}

// node build.mjs [--out FOLDER]: bundles the page into dist/: index.html, app.js, style.css, icon.svg and licenses.txt.
// The same sources and lock file give the same bytes.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const at = process.argv.indexOf("--out");
const out = at < 0 ? path.join(here, "dist") : path.resolve(process.argv[at + 1]);
mkdirSync(out, { recursive: true });

const result = await esbuild.build({
  absWorkingDir: here,
  entryPoints: ["src/app.tsx", "src/style.css"],
  outdir: out,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "esm",
  target: ["chrome109", "firefox115", "safari16.4"],
  charset: "utf8",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
});

const files = new Map(result.outputFiles.map((file) => [path.basename(file.path), file.contents]));
files.set("icon.svg", readFileSync(path.join(here, "src/icon.svg")));

// The packages of which something is in the bundle, and what they ask to be told with it.
const packages = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = input.match(/^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) packages.add(found[1]);
}
let licenses = "What the page is made of, beside Cachalot's own sources. Each stands under its license, which follows.\n";
for (const name of [...packages].sort()) {
  const folder = path.join(here, "node_modules", name);
  const about = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
  licenses += `\n${"=".repeat(100)}\n${name} ${about.version} (${about.license})\n${"=".repeat(100)}\n\n`;
  const texts = readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).sort();
  if (!texts.length) throw new Error(`${name} has no license file`);
  // Of two licenses, either may be chosen.
  for (const text of texts) licenses += readFileSync(path.join(folder, text), "utf8").replace(/\r\n/g, "\n").trim() + "\n";
}
files.set("licenses.txt", Buffer.from(licenses));

const hash = (name) => createHash("sha256").update(files.get(name)).digest("hex").slice(0, 16);
let html = readFileSync(path.join(here, "src/index.html"), "utf8");
for (const name of ["app.js", "style.css", "icon.svg"]) html = html.replace(`/page/${name}`, `/page/${name}?v=${hash(name)}`);
files.set("index.html", Buffer.from(html));
for (const [name, contents] of files) writeFileSync(path.join(out, name), contents);
for (const [name, contents] of files) console.log(`${name} ${contents.length}`);

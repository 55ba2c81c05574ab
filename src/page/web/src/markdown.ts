// Markdown with code and mathematics as nodes that do no harm: no HTML of the text's own, and what comes of it is passed
// through DOMPurify, whatever it is.
import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import MarkdownIt from "markdown-it";
import temml from "temml";

const languages = { bash, cpp, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml };
for (const [name, language] of Object.entries(languages)) hljs.registerLanguage(name, language);
hljs.registerAliases(["sh", "shell", "console"], { languageName: "bash" });
hljs.registerAliases(["c"], { languageName: "cpp" });

const kLongestFormula = 4000;
const kLongestCode = 50_000; // that is coloured

function formula(text: string, display: boolean): string {
  if (text.length > kLongestFormula) return markdown.utils.escapeHtml(text);
  try {
    const math = temml.renderToString(text, { displayMode: display, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 200] });
    // The page's policy knows no inline style; quotes of the text itself are escaped by then.
    return math.replace(/ style="[^"<>]*"/g, "");
  } catch {
    return `<code>${markdown.utils.escapeHtml(text)}</code>`;
  }
}

const markdown = new MarkdownIt({
  html: false,
  linkify: false,
  highlight: (code, name) => {
    if (!hljs.getLanguage(name) || code.length > kLongestCode) return "";
    return hljs.highlight(code, { language: name, ignoreIllegals: true }).value;
  },
});

// \( \), \[ \], $$ $$ and $ $; the last only where it looks like a formula and not like prices.
const kMarks: [string, string, boolean][] = [
  ["\\(", "\\)", false],
  ["\\[", "\\]", true],
  ["$$", "$$", true],
  ["$", "$", false],
];
markdown.inline.ruler.before("escape", "formula", (state, silent) => {
  for (const [open, close, display] of kMarks) {
    if (!state.src.startsWith(open, state.pos)) continue;
    const begin = state.pos + open.length;
    let end = state.src.indexOf(close, begin);
    while (end > 0 && close[0] === "$" && state.src[end - 1] === "\\") end = state.src.indexOf(close, end + 1);
    if (end <= begin || end + close.length > state.posMax) continue;
    const text = state.src.slice(begin, end);
    if (open === "$" && (/^\s|\s$|\n\n/.test(text) || /[0-9A-Za-z]/.test(state.src[end + 1] ?? ""))) continue;
    if (!silent) {
      const token = state.push("formula", "", 0);
      token.content = text.trim();
      token.meta = { display };
    }
    state.pos = end + close.length;
    return true;
  }
  return false;
});
// A formula of several lines is a block, so that its signs are no list or heading.
markdown.block.ruler.before(
  "fence",
  "formula_block",
  (state, startLine, endLine, silent) => {
    const first = state.src.slice(state.bMarks[startLine] + state.tShift[startLine], state.eMarks[startLine]).trim();
    const close = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\]" : "";
    if (!close) return false;
    let text = first.slice(2);
    let line = startLine;
    let found = text.endsWith(close);
    while (!found && ++line < endLine) {
      text += "\n" + state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]);
      found = text.trimEnd().endsWith(close);
    }
    if (!found) return false;
    text = text.trimEnd().slice(0, -2);
    if (text.includes(close)) return false; // a line with more than the formula
    if (silent) return true;
    const token = state.push("formula", "", 0);
    token.content = text.trim();
    token.meta = { display: true };
    token.block = true;
    state.line = line + 1;
    return true;
  },
  { alt: ["paragraph", "reference", "blockquote", "list"] },
);
markdown.renderer.rules.formula = (tokens, at) => formula(tokens[at].content, tokens[at].meta?.display === true);
// Nothing is loaded from elsewhere: a picture is a link to it.
markdown.renderer.rules.image = (tokens, at) => {
  const escape = markdown.utils.escapeHtml;
  return `<a href="${escape(String(tokens[at].attrGet("src") ?? ""))}">${escape(tokens[at].content || "picture")}</a>`;
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  const target = node.getAttribute("href") ?? "";
  if (!/^(https?:|mailto:)/i.test(target)) node.removeAttribute("href");
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

const kAllowed = {
  USE_PROFILES: { html: true, mathMl: true },
  FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "img", "video", "audio", "picture", "source", "svg", "iframe", "object", "embed", "dialog"],
  FORBID_ATTR: ["style", "id", "name", "srcset", "action", "formaction", "href-lang", "tabindex", "autofocus", "popover", "slot", "is"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true as const,
};

export function render(text: string): DocumentFragment {
  const nodes = DOMPurify.sanitize(markdown.render(text), kAllowed);
  for (const block of nodes.querySelectorAll("pre")) {
    const code = block.querySelector("code");
    const name = code?.className.match(/language-([\w+#.-]{1,20})/)?.[1] ?? "";
    const frame = document.createElement("div");
    frame.className = "code";
    const head = document.createElement("div");
    head.className = "code-head";
    const label = document.createElement("span");
    label.textContent = name || "text";
    const copy = document.createElement("button");
    copy.type = "button";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", "Copy this code");
    copy.addEventListener("click", () => {
      void navigator.clipboard?.writeText(block.textContent ?? "").then(() => (copy.textContent = "Copied"));
    });
    head.append(label, copy);
    block.replaceWith(frame);
    block.tabIndex = 0;
    frame.append(head, block);
  }
  for (const table of nodes.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "scroll";
    frame.tabIndex = 0;
    table.replaceWith(frame);
    frame.append(table);
  }
  return nodes;
}

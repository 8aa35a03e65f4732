// A model's card, which is Markdown, as elements. Whatever is not understood stays text; links stay text, too, since
// nothing on this page leads elsewhere.

import { el } from "./dom.js";

const INLINE = [
  [/^`([^`]+)`/, ([, code]) => el("code", {}, code)],
  [/^\*\*(.+?)\*\*/s, ([, text]) => el("strong", {}, inline(text))],
  [/^[*_](?=\S)(.+?)(?<=\S)[*_](?!\w)/s, ([, text]) => el("em", {}, inline(text))],
  [/^!\[([^\]]*)\]\([^)]*\)/, ([, text]) => text],
  [/^\[([^\]]+)\]\(([^)\s]+)[^)]*\)/, ([, text, address]) => [inline(text), el("span", { class: "address" }, ` (${address})`)]],
  [/^<(https?:[^>\s]+)>/, ([, address]) => el("span", { class: "address" }, address)],
  [/^\\([\\`*_{}[\]()#+\-.!|<>])/, ([, letter]) => letter],
];

function inline(text) {
  const parts = [];
  let plain = "";
  for (let rest = text; rest; ) {
    const hit = INLINE.map(([pattern, make]) => [rest.match(pattern), make]).find(([match]) => match);
    const inWord = /\w$/.test(plain) && /^[*_]/.test(rest); // snake_case is no emphasis
    if (hit && !inWord) {
      parts.push(plain, hit[1](hit[0]));
      plain = "";
      rest = rest.slice(hit[0][0].length);
    } else {
      plain += rest[0];
      rest = rest.slice(1);
    }
  }
  return [...parts, plain];
}

/** The blocks: each says whether it begins in a line, and takes as many as are its own. */
const BLOCKS = [fence, heading, rule, table, list, quote];

/** Elements for a text; what stands between --- at its beginning is for machines and left out. */
export function rendered(text) {
  const lines = text.replace(/\r\n?/g, "\n").replace(/^---\n[\s\S]*?\n---(\n|$)/, "").split("\n");
  const elements = [];
  while (lines.length) {
    if (!lines[0].trim()) { lines.shift(); continue; }
    elements.push(block(lines) ?? paragraph(lines));
  }
  return elements;
}

function block(lines) {
  for (const take of BLOCKS) {
    const element = take(lines);
    if (element) return element;
  }
  return null;
}

function fence(lines) {
  const mark = lines[0].match(/^\s*(```+|~~~+)/)?.[1];
  if (!mark) return null;
  lines.shift();
  const code = [];
  while (lines.length && !lines[0].trim().startsWith(mark)) code.push(lines.shift());
  lines.shift();
  return el("pre", { tabindex: 0 }, el("code", {}, code.join("\n")));
}

function heading(lines) {
  const found = lines[0].match(/^(#{1,6})\s+(.*?)\s*#*$/);
  if (!found) return null;
  lines.shift();
  return el(`h${Math.min(found[1].length + 2, 6)}`, {}, inline(found[2])); // the dialog's title is an h2
}

function rule(lines) {
  return /^\s*([-*_])(\s*\1){2,}\s*$/.test(lines[0]) ? (lines.shift(), el("hr")) : null;
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => inline(cell.trim()));

function table(lines) {
  if (!lines[0].includes("|") || !/^[\s|:-]*-[\s|:-]*$/.test(lines[1] ?? "") || !lines[1].includes("|")) return null;
  const head = cells(lines.shift());
  lines.shift();
  const rows = [];
  while (lines.length && lines[0].includes("|")) rows.push(cells(lines.shift()));
  const named = head.some((cell) => cell.join("").trim());
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table" }, el("table", {},
    named && el("thead", {}, el("tr", {}, head.map((cell) => el("th", { scope: "col" }, cell)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell)))))));
}

const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;

function list(lines) {
  const first = lines[0].match(ITEM);
  if (!first) return null;
  const depth = first[1].length;
  const items = [];
  while (lines.length) {
    const item = lines[0].match(ITEM);
    if (item && item[1].length <= depth + 1) {
      if (item[1].length < depth) break;
      lines.shift();
      items.push([item[3]]);
    } else if (lines[0].trim() && /^\s/.test(lines[0])) items.at(-1).push(lines.shift());
    else break;
  }
  const content = items.map(([text, ...more]) => {
    const plain = [text];
    while (more.length && !ITEM.test(more[0])) plain.push(more.shift().trim());
    return el("li", {}, inline(plain.join(" ")), more.length ? rendered(more.join("\n")) : null);
  });
  return el(/\d/.test(first[2]) ? "ol" : "ul", {}, content);
}

function quote(lines) {
  if (!/^\s*>/.test(lines[0])) return null;
  const inner = [];
  while (lines.length && /^\s*>/.test(lines[0])) inner.push(lines.shift().replace(/^\s*> ?/, ""));
  return el("blockquote", {}, rendered(inner.join("\n")));
}

function paragraph(lines) {
  const text = [lines.shift()];
  while (lines.length && lines[0].trim() && !/^(\s*(```|~~~|>|[-*+]\s|\d+[.)]\s)|#{1,6}\s)/.test(lines[0])) text.push(lines.shift());
  return el("p", {}, inline(text.join("\n").trim()));
}

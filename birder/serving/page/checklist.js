// The checklist: only species on it may be named, as no penguin comes to a feeder in Finland. This browser remembers it.

import { button, byId, el, memory, open } from "./dom.js";
import { searchBox } from "./search.js";
import { listed, nameOf, species } from "./species.js";
import { count } from "./words.js";

/** Event: `changed`. */
export const checklist = Object.assign(new EventTarget(), { text: memory.get("checklist") ?? "", used: memory.get("checklist-used") === "yes" });

/** The labels that may be named: null if all may, an empty list if the model knows no species on it. */
export const labels = () => (checklist.used ? listed(checklist.text).labels : null);

function use(text, used) {
  memory.set("checklist", text);
  memory.set("checklist-used", used ? "yes" : "no");
  Object.assign(checklist, { text, used });
  checklist.dispatchEvent(new CustomEvent("changed"));
}

/** What stands on the button. */
export function title() {
  const known = labels();
  return known ? `Checklist: ${known.length ? count(known.length) : "no known"} species` : "Checklist";
}

export function openChecklist() {
  const dialog = byId("checklist");
  const text = el("textarea", { id: "checklist-text", rows: 10, spellcheck: "false", dir: "auto", placeholder: "One species in a line" });
  text.value = checklist.text;
  const status = el("p", { class: "status", role: "status" });
  const apply = button("Name only these", () => { use(text.value.trim(), true); dialog.close(); }, { class: "primary" });
  const examine = () => {
    const { labels: known, unknown } = listed(text.value);
    apply.disabled = !known.length;
    status.replaceChildren(...described(known, unknown));
  };
  text.addEventListener("input", examine);
  const search = searchBox("Add a species", (label) => {
    text.value = `${text.value.trimEnd()}\n${nameOf(label)}\n`.trimStart();
    text.scrollTop = text.scrollHeight;
    examine();
  });
  open(dialog, "Which species may it be?",
    el("p", { class: "soft" }, `With a list, only its species are named: those of your garden, or of this month. The model knows ${count(species.labels.length)}.`),
    search,
    el("label", { for: text.id }, "Or paste a list"), text, status,
    el("div", { class: "actions" }, apply,
      button("Name all species", () => { use(text.value.trim(), false); dialog.close(); }),
      button("Empty the list", () => { text.value = ""; examine(); text.focus(); }, { class: "quiet" })));
  examine();
  search.querySelector("input").focus();
}

function described(known, unknown) {
  if (!known.length && !unknown.length) return ["The list is empty, so all species may be named."];
  const parts = [`${count(known.length)} species of this model on the list.`];
  if (unknown.length) {
    parts.push(` Unknown to it: `, el("bdi", {}, unknown.slice(0, 6).join(", ")), unknown.length > 6 ? `, and ${unknown.length - 6} more.` : ".");
  }
  return parts;
}

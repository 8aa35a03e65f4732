// Keys for the whole page, and the dialog that shows them.

import { byId, el, memory, open } from "./dom.js";

const KEYS = [
  ["Anywhere", [["o", "choose pictures"], ["g", "pictures"], ["t", "table"], ["r", "review"], ["f", "checklist"], ["d", "download the table"], ["?", "this help"]]],
  ["In a picture", [["← →", "previous, next"], ["x", "what it looked at"], ["Esc", "back"]]],
  ["Reviewing", [["a", "accept"], ["1 – 5", "it is this answer"], ["c", "it is another species"], ["s", "skip"], ["z", "undo"], ["x", "what it looked at"]]],
];

let used = memory.get("keys") !== "no";

/** @param actions [function(key) -> whether it was used], the nearest first */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key.length === 1 && !used && key !== "?") return;
    if (event.repeat && !key.startsWith("Arrow")) return; // a key that is held down decides one picture, not all
    if (actions.some((action) => action(key))) event.preventDefault();
  });
}

const typing = (element) => element.matches("textarea, select, input:not([type=checkbox])");

export function help() {
  const box = el("input", { type: "checkbox", checked: used, on: { change: () => {
    used = box.checked;
    memory.set("keys", used ? "yes" : "no");
  } } });
  open(byId("help"), "Keys, and what is what",
    el("div", { class: "keylists" }, KEYS.map(([title, keys]) => el("div", {}, el("h3", {}, title), el("dl", {}, keys.map(([key, what]) =>
      el("div", {}, el("dt", {}, key.split(" ").map((part) => (part === "–" ? " – " : el("kbd", {}, part)))), el("dd", {}, what))))))),
    el("label", { class: "switch" }, box, "Single letters are keys"),
    el("h3", {}, "The table"),
    el("p", {}, "It has the columns that birder predict writes, and behind them review and reviewed_label. Cells are as they are: a file ",
      "name that begins with =, +, - or @ may be taken for a formula by a spreadsheet, so import tables with names of strangers as text."),
    el("h3", {}, "What the figures mean"),
    el("p", {}, "A calibrated 80 % is right about 8 times in 10, for pictures like those the model was made for. “Unsure” is an answer ",
      "below the model’s threshold. “Not in my list” is a picture that looks like no species that the model knows."));
  byId("help").querySelector("h2").focus();
}

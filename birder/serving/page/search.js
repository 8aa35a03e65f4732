// A field that finds species while one types: a combobox, by the pattern of the ARIA authoring practices.

import { el, written } from "./dom.js";
import { found, isKnown, nameAndLabel } from "./species.js";

let boxes = 0;

/**
 * @param title   what it is for
 * @param chosen  called with the label; or with the text, if it is no species and `free` allows that
 */
export function searchBox(title, chosen, { free = false, placeholder = "Type a name" } = {}) {
  const id = `search-${++boxes}`;
  let labels = [], active = -1;
  const list = el("ul", { id: `${id}-list`, role: "listbox", "aria-label": title, hidden: true });
  const input = el("input", { id, type: "text", role: "combobox", placeholder, autocomplete: "off", spellcheck: "false", dir: "auto",
    "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id });

  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (place) => {
    active = place;
    [...list.children].forEach((option, number) => option.setAttribute("aria-selected", number === place));
    list.children[place]?.scrollIntoView({ block: "nearest" });
    if (list.children[place]) input.setAttribute("aria-activedescendant", list.children[place].id);
  };
  const take = (place) => {
    const [label] = labels[place];
    input.value = "";
    close();
    chosen(label);
  };
  const offer = () => {
    const typed = input.value.trim();
    labels = typed ? found(typed).map((label) => [label, nameAndLabel("span", label)]) : [];
    if (free && typed && !isKnown(typed)) labels.push([typed, ["Write ", written("q", typed)]]);
    list.replaceChildren(...labels.map(([, content], place) => {
      const option = el("li", { id: `${id}-${place}`, role: "option", on: { mousedown: (event) => { event.preventDefault(); take(place); } } });
      option.append(...content);
      return option;
    }));
    if (typed && !labels.length) list.append(el("li", { class: "none", role: "option", "aria-disabled": "true" }, "No species of this model"));
    list.hidden = !typed;
    input.setAttribute("aria-expanded", String(Boolean(typed)));
    mark(labels.length ? 0 : -1);
  };
  input.addEventListener("input", offer);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && labels.length) mark((active + step + labels.length) % labels.length);
    else if (event.key === "Enter" && !list.hidden && active >= 0) take(active);
    else if (event.key === "Escape" && !list.hidden) close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return el("div", { class: "search" }, el("label", { for: id }, title), el("div", { class: "box" }, input, list));
}

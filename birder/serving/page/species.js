// The species of the model: their names in any language, finding them by what is typed, and lists of them.

import { memory, written } from "./dom.js";

/** Event: `changed`. Languages are the tags of the server; null is the model's own names. */
export const species = Object.assign(new EventTarget(), { labels: [], languages: [], language: null });

let namesOf = new Map(); // label -> {language: name}
let entries = []; // {label, shown, words: what is searched}
let known = new Map(); // a name in any language, plainly -> label

/** @param model what the server says of it, with `species` and `languages` */
export function take(model) {
  namesOf = new Map(model.species.map(({ label, names }) => [label, names]));
  known = new Map();
  for (const [label, names] of namesOf) for (const name of Object.values(names)) known.set(plainly(name), label);
  for (const label of namesOf.keys()) known.set(plainly(label), label); // what the model says comes before what it is called elsewhere
  Object.assign(species, { labels: [...namesOf.keys()], languages: model.languages });
  speak(preferred(model.languages));
}

function speak(language) {
  species.language = language;
  entries = species.labels.map((label) => ({ label, shown: nameOf(label), words: ` ${folded(nameOf(label))} ${folded(label)}` }));
  species.dispatchEvent(new CustomEvent("changed"));
}

export function choose(language) {
  memory.set("language", language ?? "");
  speak(language);
}

/** What was chosen before, else the first language of the reader for which there are names, else the model's own. */
function preferred(languages) {
  const chosen = memory.get("language");
  if (chosen === "" || languages.includes(chosen)) return chosen || null;
  for (const wanted of navigator.languages) {
    const found = languages.find((tag) => tag.toLowerCase() === wanted.toLowerCase())
      ?? languages.find((tag) => base(tag) === base(wanted));
    if (found) return found;
    if (base(wanted) === "en") return null; // the models' own names are English, or of science
  }
  return null;
}

const base = (tag) => tag.toLowerCase().split("-")[0];

/** The name in the language that is chosen; the label where there is none. */
export const nameOf = (label) => namesOf.get(label)?.[species.language] || label;

/** A name, and below it the label if that is another. */
export function nameAndLabel(tag, label, attributes = {}) {
  const shown = nameOf(label);
  const name = written(tag, shown, shown === label ? attributes : { lang: species.language, ...attributes });
  return shown === label ? [name] : [name, written("span", label, { class: "label" })];
}

/** The language in its own words. */
export function languageName(tag) {
  try {
    const name = new Intl.DisplayNames([tag], { type: "language" }).of(tag);
    return name.charAt(0).toLocaleUpperCase(tag) + name.slice(1);
  } catch {
    return tag;
  }
}

/** As names are compared: case, and kind and number of spaces, do not matter, and an underscore is a space. */
const plainly = (name) => name.normalize("NFC").replace(/_/g, " ").toLowerCase().split(/\s+/).filter(Boolean).join(" ");

/** As they are searched: without accents, hyphens and apostrophes, too. */
export const folded = (name) => plainly(name).normalize("NFKD").replace(/[\u0300-\u036f'’]/g, "").replace(/-/g, " ").normalize("NFC");

/** Labels whose name has all that was typed, as beginnings of words; those that begin with it first. */
export function found(typed, limit = 40) {
  const text = folded(typed);
  const parts = text.split(" ").filter(Boolean);
  const fitting = entries.filter(({ words }) => parts.every((part) => words.includes(` ${part}`)));
  const rank = ({ words }) => (words.startsWith(` ${text}`) ? 0 : 1);
  return fitting.sort((a, b) => rank(a) - rank(b)).slice(0, limit).map(({ label }) => label);
}

/** Whether a text is the name of a species, in any language. */
export const isKnown = (name) => known.has(plainly(name));

/** The species that a list names, one in a line, and the lines that name none. */
export function listed(text) {
  const lines = text.split(/[\r\n]+/).map((line) => line.replace(/#.*/, "").trim()).filter(Boolean);
  const labels = new Set(), unknown = [];
  for (const line of lines) {
    const label = known.get(plainly(line)) ?? known.get(plainly(line.split(/[,;\t]/)[0].replace(/^"|"$/g, "")));
    if (label === undefined) unknown.push(line);
    else labels.add(label);
  }
  return { labels: [...labels], unknown };
}

// The models of the server: which one is asked, what is known of it, and its card.

import { button, byId, chooser, el, fill, memory, open, written } from "./dom.js";
import { rendered } from "./markdown.js";
import { ask, askJson } from "./server.js";
import * as names from "./species.js";
import { bytes, count, large, percent } from "./words.js";

/** Event: `changed`. `current` is what the server says of the model that is asked. */
export const models = Object.assign(new EventTarget(), { all: [], current: null });

/** Learn which models there are, and take the one that was used last, else the server's own choice. */
export async function begin() {
  models.all = (await askJson("v1/models")).models;
  const last = models.all.find(({ name }) => name === memory.get("model"));
  await take((last ?? models.all.find((model) => model.default) ?? models.all[0]).name);
}

let wanted = "";

export async function take(name) {
  wanted = name;
  const model = await askJson(`v1/models/${encodeURIComponent(name)}`);
  if (wanted !== name) return; // another has been chosen since
  // A person is told what is unsure, also where programs are left to judge the scores themselves.
  models.current = { ...model, min_score: model.min_score || model.threshold || 0 };
  names.take(model);
  models.dispatchEvent(new CustomEvent("changed"));
}

/** Choosers of the model and of the language of names, where there is a choice. */
export function drawChoosers(failed) {
  const { all, current } = models;
  const { language, languages } = names.species;
  const choose = (name) => {
    memory.set("model", name);
    take(name).catch(failed);
  };
  const box = byId("choosers");
  const focused = [...box.querySelectorAll("select, button")].indexOf(document.activeElement);
  fill(box,
    all.length > 1 && chooser("Model", all.map(({ name }) => [name, name]), current.name, choose),
    languages.length > 0 && chooser("Names", [["", "as in the model"], ...languages.map((tag) => [tag, names.languageName(tag)])],
      language ?? "", (tag) => names.choose(tag || null)),
    button("About the model", openCard, { class: "quiet", id: "about" }));
  box.querySelectorAll("select, button")[focused]?.focus();
}

async function openCard() {
  const model = models.current;
  const card = el("div", { class: "markdown" }, el("p", { class: "soft" }, model.card ? "Fetching its card …" : "It has no card."));
  open(byId("card"), written("span", model.name),
    el("dl", { class: "facts" }, facts(model).map(([term, words]) => el("div", {}, el("dt", {}, term), el("dd", { dir: "auto" }, words)))), card);
  if (!model.card) return;
  try {
    const response = await ask(`v1/models/${encodeURIComponent(model.name)}/card`, { accept: "text/markdown" });
    fill(card, rendered(await response.text()));
  } catch (error) {
    fill(card, el("p", { class: "wrong" }, error.message));
  }
}

function facts(model) {
  return [
    ["Knows", `${count(model.classes)} species`],
    ["Network", `${model.network}, ${large(model.parameters)} parameters, ${bytes(model.bytes)}`],
    ["Looks at", `${model.size[1]} × ${model.size[0]} pixels of a picture`],
    ["Runs on", model.backend],
    ["Probabilities", model.calibrated ? "calibrated: they are how often such answers are right" : "not calibrated: they give an order, and promise nothing"],
    ["Unsure below", model.min_score > 0 ? percent(model.min_score) : "never; it always names one"],
    ["Says “not in my list”", model.novelty ? "yes" : "no; it cannot tell what it does not know"],
    ...(model.index ? [["Similar pictures", `from ${count(model.index)}`]] : []),
  ];
}

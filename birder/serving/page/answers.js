// What was answered for a picture, in words and bars.

import { el, written } from "./dom.js";
import { labels } from "./checklist.js";
import { models } from "./models.js";
import { nameAndLabel, nameOf } from "./species.js";
import { bytes, count, detailOf, moment, percent, reasonOf } from "./words.js";

/** A line over the answer; empty if it is simply a name. */
export function eyebrow(picture) {
  const { state, row } = picture;
  if (state === "failed") return "No answer";
  if (!row) return state === "sending" ? "Looking …" : "Waiting";
  return { ok: "", unsure: "Unsure", not_in_list: "Not in my list", error: "Cannot be read" }[row.status];
}

/** The answer in a few words. */
export function inWords(picture) {
  const { row, best } = picture;
  const over = eyebrow(picture);
  if (!row || !best) return row ? `${over}: ${reasonOf(row)}` : over;
  const name = `${nameOf(best.label)}, ${percent(best.score)}`;
  return { ok: name, unsure: `Unsure, perhaps ${name}`, not_in_list: `Not in my list; nearest ${name}` }[row.status];
}

/** What the figures mean, in a sentence. */
export function meaning({ row, best, state, failure }) {
  const model = models.current;
  if (state === "failed") return failure;
  if (!row) return "";
  if (row.status === "error") return reasonOf(row);
  if (state !== "done") return "This is the answer to what was asked before.";
  const limited = best.open_score !== null && labels()
    ? ` Only the ${count(labels().length)} species on your checklist could be named; among all, it would have ${percent(best.open_score)}.` : "";
  if (row.status === "not_in_list") return `It looks like none of the ${count(model.classes)} species that the model knows. These are the nearest.`;
  if (row.status === "unsure") return `The best answer reaches ${percent(best.score)}; the model names a bird from ${percent(model.min_score)} on.${limited}`;
  if (limited) return limited.trim();
  if (!model.calibrated) return "The model is not calibrated: its figures give an order, and promise nothing.";
  const right = `of answers given with ${percent(best.score)}, about ${Math.min(99, Math.round(100 * best.score))} in 100 are right.`;
  return best.score < 0.5 ? `More likely wrong than right: ${right}` : right.replace(/^o/, "O");
}

/** The species with their probabilities, as bars: a list, or `plain`, within a button, which may hold none. */
export function bars(answers, { plain = false, numbered = false } = {}) {
  const [list, item] = plain ? ["span", "span"] : ["ol", "li"];
  return el(list, { class: "bars" }, answers.map(({ label, score }, rank) =>
    el(item, { class: "answer" }, numbered && el("kbd", { "aria-hidden": "true" }, String(rank + 1)),
      el("span", { class: "name" }, nameAndLabel("span", label)), el("span", { class: "value" }, percent(score)), bar(score))));
}

export function bar(score) {
  const element = el("span", { class: "bar", "aria-hidden": "true" });
  element.style.setProperty("--share", score);
  return element;
}

/** What is known of the file. */
export function facts({ path, file, row }) {
  const parts = [["File", written("span", path)], ["Size", [row?.width ? `${count(row.width)} × ${count(row.height)}, ` : "", bytes(file.size)]]];
  if (row?.taken) parts.push(["Taken", moment(row.taken)]);
  if (row?.reason) parts.push(["The server says", written("span", detailOf(row) || row.reason)]);
  return el("dl", { class: "facts" }, parts.map(([term, words]) => el("div", {}, el("dt", {}, term), el("dd", {}, words))));
}

/** What a person decided. The name stands between signs that let it run in its own direction (FSI, PDI). */
export function decision({ review, reviewedLabel }) {
  return reviewedLabel ? `${review}: \u2068${nameOf(reviewedLabel)}\u2069` : review;
}

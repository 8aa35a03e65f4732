// The page as a whole: what came in is sent, what is answered is shown.

import * as choosing from "./choosing.js";
import { checklist, labels, openChecklist, title as checklistTitle } from "./checklist.js";
import { csv, download } from "./csv.js";
import { Detail, pictureKey } from "./detail.js";
import { button, byId, el, fill, put, say, soon, written } from "./dom.js";
import { Gallery } from "./gallery.js";
import * as keys from "./keys.js";
import { begin, drawChoosers, models } from "./models.js";
import { add, clear, look, pictures, sight } from "./pictures.js";
import { drawProgress, tellProgress } from "./progress.js";
import { go, pose, queue, stop } from "./queue.js";
import { Review } from "./review.js";
import { server } from "./server.js";
import { folded, nameOf, species } from "./species.js";
import { Table } from "./table.js";
import { forget } from "./thumbnails.js";
import { askToken } from "./token.js";
import { count, duration, KINDS, kindOf, plural } from "./words.js";

const TOP = 5;
const VIEWS = ["pictures", "table", "review"];

const gallery = new Gallery(byId("cards"));
const single = new Detail(byId("single"));
const table = new Table(byId("rows"));
const review = new Review(byId("deciding"));
let view = "pictures";
let saved = true; // whether what a person decided is in a table on their disk

/** Ask this of each picture: of what it was not asked. With a list of which the model knows nothing, there is nothing to ask. */
function askAnew() {
  const model = models.current;
  if (!model) return;
  const named = labels();
  const unlisted = named?.length === 0;
  fill(byId("notice"), unlisted && [el("strong", {}, "The model knows no species on your checklist, so it is not asked."), " ", button("Open the checklist", openChecklist)]);
  pose(unlisted ? null : { model: model.name, least: model.min_score, top: TOP, similar: model.index > 0, labels: named, key: JSON.stringify([model.name, named]) });
}

function inSight() {
  const words = folded(sight.words);
  const fits = (picture) => !words || folded(picture.path).includes(words)
    || (picture.best && (folded(nameOf(picture.best.label)).includes(words) || folded(picture.best.label).includes(words)));
  return pictures.all.filter((picture) => (sight.kind === null || kindOf(picture) === sight.kind) && fits(picture));
}

/** Draw what is in sight; which pictures these are may have changed. */
const draw = soon(() => {
  const { all } = pictures;
  begun(all.length > 0);
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== view;
    byId(`tab-${name}`).setAttribute("aria-selected", name === view);
    byId(`tab-${name}`).tabIndex = name === view ? 0 : -1;
  }
  drawCounts();
  drawProgress();
  if (!all.length) return;
  const list = inSight();
  byId("narrow").hidden = view === "review" || all.length === 1; // a review goes through all
  byId("nothing").hidden = list.length > 0 || view === "review";
  if (view === "pictures") drawPictures(list);
  if (view === "table") table.show(list);
  if (view === "review") review.show();
});

/** From the first picture on there is a desk to work at; the focus goes with what has it. */
function begun(yes) {
  const before = !document.body.classList.contains("empty");
  document.body.classList.toggle("empty", !yes);
  byId("work").hidden = !yes;
  if (before === yes || document.querySelector("dialog[open]")) return;
  byId(yes ? "summary" : "choose").focus({ preventScroll: true });
}

/** One picture by itself is shown in full. */
function drawPictures(list) {
  const alone = pictures.all.length === 1;
  byId("single").hidden = !alone;
  byId("cards").hidden = alone;
  if (!alone) {
    if (single.picture) single.clear();
    gallery.show(list);
  } else if (single.picture !== pictures.all[0]) single.show(pictures.all[0]);
}

function drawCounts() {
  const numbers = new Map([["all", pictures.all.length]]);
  const named = new Set();
  for (const picture of pictures.all) {
    const kind = kindOf(picture);
    numbers.set(kind, (numbers.get(kind) ?? 0) + 1);
    if (kind === "ok") named.add(picture.best.label);
  }
  if (sight.kind !== null && !numbers.has(sight.kind)) sight.kind = null;
  put(byId("summary"), plural(pictures.all.length, "picture") + (named.size && pictures.all.length > 1 ? `, ${count(named.size)} species` : ""));
  for (const chip of byId("kinds").children) {
    const { kind } = chip.dataset;
    chip.hidden = !numbers.has(kind) || numbers.size < 3;
    chip.setAttribute("aria-pressed", kind === (sight.kind ?? "all"));
    put(chip.lastChild, count(numbers.get(kind) ?? 0));
  }
  put(byId("list"), checklistTitle());
  byId("list").classList.toggle("used", labels() !== null);
}

function choose(name, focus = false) {
  view = name;
  draw();
  if (focus) byId(`tab-${name}`).focus();
}

function save() {
  const rows = pictures.all.filter(({ state }) => state === "done"); // others have no answer, or one to the question before
  if (!rows.length) return;
  const { labels: listed } = queue.question;
  const top = Math.min(TOP, listed?.length ?? models.current.classes);
  download(csv(rows, { top, open: listed !== null, novelty: models.current.novelty }), `birds ${new Date().toISOString().slice(0, 10)}.csv`);
  saved = true;
  const without = pictures.all.length - rows.length;
  say(`A table of ${plural(rows.length, "picture")} has been downloaded${without ? `; ${plural(without, "picture")} without an answer are left out` : ""}.`);
}

function empty() {
  if (!saved && !window.confirm("Your review has not been downloaded yet. Remove all pictures nevertheless?")) return;
  stop();
  saved = true;
  clear();
}

function taken(files, others) {
  if (files.length) add(files);
  const left = others ? `${plural(others, "other file")} in the folder ${others === 1 ? "was" : "were"} left out.` : "";
  if (queue.question) put(byId("notice"), files.length ? left : `There was no picture in it. ${left}`); // else it says what is wrong
  if (files.length) say(`${plural(files.length, "picture")} added.`);
}

const ALWAYS = { o: () => byId("files").click(), f: openChecklist, "?": keys.help };
const AT_WORK = { g: () => choose("pictures"), t: () => choose("table"), r: () => choose("review"), d: save };

function pageKey(key) {
  if (document.querySelector("dialog[open]")) return false;
  const action = ALWAYS[key] ?? (pictures.all.length ? AT_WORK[key] : undefined);
  action?.();
  return Boolean(action);
}

function failed(error) {
  fill(byId("notice"), el("strong", {}, error.message), " ", button("Try again", connect));
}

async function connect() {
  byId("notice").textContent = "";
  try {
    await begin();
  } catch (error) {
    failed(error);
  }
}

function describe() {
  const { current } = models;
  drawChoosers(failed);
  const local = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(location.hostname);
  fill(byId("knows"), "It knows ", el("strong", {}, `${count(current.classes)} species`), ", and says so when it is unsure",
    current.novelty ? " or has never seen the like." : ".");
  fill(byId("private"), local ? "Your pictures stay on this computer: they go to the birder that runs here, are looked at, and are not kept."
    : ["Your pictures go to the birder at ", written("span", location.host), " and nowhere else: they are looked at, and are not kept."]);
  askAnew();
}

pictures.addEventListener("added", () => { draw(); go(); });
pictures.addEventListener("cleared", () => {
  forget();
  single.clear();
  review.clear();
  byId("words").value = "";
  look({ kind: null, words: "" });
});
pictures.addEventListener("changed", ({ detail }) => {
  if (detail.review) saved = false;
  gallery.update(detail);
  tellProgress();
  draw();
});
queue.addEventListener("changed", () => { drawProgress(); tellProgress(); draw(); });
sight.addEventListener("changed", draw);
models.addEventListener("changed", describe);
species.addEventListener("changed", () => {
  for (const picture of pictures.all) gallery.update(picture);
  drawChoosers(failed);
  draw();
});
checklist.addEventListener("changed", () => { askAnew(); draw(); });
window.addEventListener("online", () => { if (queue.state === "unreachable") go(); });
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

byId("kinds").append(...Object.entries({ all: "All", ...KINDS }).map(([kind, title]) =>
  button([`${title} `, el("span", { class: "number" })], () => look({ kind: kind === "all" ? null : kind }), { "data-kind": kind, hidden: true })));
byId("list").addEventListener("click", openChecklist);
byId("save").addEventListener("click", save);
byId("clear").addEventListener("click", empty);
for (const opener of document.querySelectorAll("[data-help]")) opener.addEventListener("click", keys.help);
byId("words").addEventListener("input", ({ target }) => look({ words: target.value }));
VIEWS.forEach((name, place) => {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => choose(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(VIEWS[(place + step + VIEWS.length) % VIEWS.length], true);
  });
});
server.askToken = askToken;
server.addEventListener("hold", ({ detail: { seconds, why } }) => { // later, the progress says it
  if (!models.current) fill(byId("notice"), el("strong", {}, "The server wants time."), ` It says “${why}”, and is asked again in ${duration(seconds)}.`);
});
keys.listen([
  (key) => byId("picture").open && pictureKey(key),
  (key) => view === "review" && !document.querySelector("dialog[open]") && pictures.all.length > 0 && review.key(key),
  pageKey,
]);
choosing.listen(taken);
draw();
connect();

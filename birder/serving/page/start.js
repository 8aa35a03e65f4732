// The page as a whole: what came in is sent, what is answered is shown.

import * as choosing from "./choosing.js";
import { checklist, labels, openChecklist, title as checklistTitle } from "./checklist.js";
import { csv, download } from "./csv.js";
import { Detail, pictureKey } from "./detail.js";
import { button, byId, el, fill, open, say, soon, written } from "./dom.js";
import { Gallery } from "./gallery.js";
import * as keys from "./keys.js";
import { begin, drawChoosers, models } from "./models.js";
import { add, clear, look, pictures, sight } from "./pictures.js";
import { go, left, pose, queue, retry, stop } from "./queue.js";
import { Review } from "./review.js";
import { server } from "./server.js";
import { folded, nameOf, species } from "./species.js";
import { Table } from "./table.js";
import { forget } from "./thumbnails.js";
import { count, duration, KINDS, kindOf, plural } from "./words.js";

const TOP = 5;
const VIEWS = ["pictures", "table", "review"];

const gallery = new Gallery(byId("cards"));
const single = new Detail(byId("single"));
const table = new Table(byId("rows"));
const review = new Review(byId("deciding"));
let view = "pictures";
let saved = true; // whether what a person decided is in a table on their disk
let holding = null; // timer while the server wants time

/** What is asked of each picture. */
function ask() {
  const model = models.current;
  if (!model) return;
  const named = labels();
  pose({ model: model.name, top: TOP, similar: model.index > 0, labels: named, key: JSON.stringify([model.name, named]) });
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
  byId("summary").textContent = plural(pictures.all.length, "picture") + (named.size && pictures.all.length > 1 ? `, ${count(named.size)} species` : "");
  for (const chip of byId("kinds").children) {
    const { kind } = chip.dataset;
    chip.hidden = !numbers.has(kind) || numbers.size < 3;
    chip.setAttribute("aria-pressed", kind === (sight.kind ?? "all"));
    chip.lastChild.textContent = count(numbers.get(kind) ?? 0);
  }
  byId("list").textContent = checklistTitle();
  byId("list").classList.toggle("used", labels() !== null);
}

/** How far it is, and the one thing that can be done about it. Elements stay, so that no click falls between two of them. */
function drawProgress() {
  const total = pictures.all.length, open = left();
  Object.assign(byId("bar"), { hidden: queue.state !== "running", max: Math.max(1, total), value: total - open });
  const [title, words, act] = progress(total, open);
  byId("progress-title").textContent = title;
  byId("progress-words").textContent = words;
  Object.assign(byId("act"), { hidden: !act, textContent: act ?? "" });
  byId("progress").className = queue.state;
  document.title = queue.state === "running" ? `${total - open} of ${total} – birder` : "birder";
}

const ACTS = { Stop: () => stop(), "Try again": () => (queue.state === "idle" ? retry() : go()), "Go on": go, "Give it": go };

/** [what is wrong, the rest, the name of an act or null] */
function progress(total, open) {
  const failed = pictures.all.filter(({ state }) => state === "failed").length;
  if (queue.state === "running") {
    const seconds = queue.answered > 4 ? ((Date.now() - queue.begun) / 1000 / queue.answered) * open : 0;
    return [holding ? "The server is busy; it goes on in a moment." : "", `${count(total - open)} of ${count(total)} looked at${seconds > 5 ? `, about ${duration(seconds)} left` : ""}`, "Stop"];
  }
  if (queue.state === "unreachable") return ["The server does not answer.", `It may have been stopped, or the network is down. ${plural(open, "picture")} waiting; nothing is lost.`, "Try again"];
  if (queue.state === "refused") return ["The server wants a token.", "", "Give it"];
  if (queue.state === "stopped" && open) return ["Stopped.", `${plural(open, "picture")} not looked at yet.`, "Go on"];
  if (failed) return [`${plural(failed, "picture")} without an answer.`, "", "Try again"];
  return ["", "", null];
}

function choose(name, focus = false) {
  view = name;
  draw();
  if (focus) byId(`tab-${name}`).focus();
}

function save() {
  const rows = pictures.all.filter(({ state }) => state === "done"); // others have no answer, or one to the question before
  if (!rows.length) return;
  const open = rows.some(({ row }) => row.answers.some(({ open_score: score }) => score !== null && score !== undefined));
  download(csv(rows, { top: TOP, open, novelty: Boolean(models.current?.novelty) }), `birds ${new Date().toISOString().slice(0, 10)}.csv`);
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

/** Ask a person for the token. */
server.askToken = (wrong) => new Promise((resolve) => {
  const dialog = byId("token");
  const input = el("input", { id: "token-text", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-why" });
  let given = null;
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); given = input.value.trim(); dialog.close(); } } },
    el("p", { id: "token-why" }, wrong ? "The server does not know this token." : "", " It stands in the address that birder serve printed, behind #token=, or in the file that it was given."),
    el("label", { for: input.id }, "Token"), input,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Go on")));
  dialog.addEventListener("close", () => resolve(given || null), { once: true });
  open(dialog, "This server wants a token", form);
  input.focus();
});

const progressSaid = { state: "", at: 0 };

/** Tell screen readers how far it is, now and then, and when it is over. */
function tell() {
  const done = queue.state === "idle" && progressSaid.state === "running";
  const now = Date.now();
  if (done) {
    const kinds = Object.entries(KINDS).map(([kind, title]) => [title, pictures.all.filter((picture) => kindOf(picture) === kind).length]);
    say(`Done: ${plural(pictures.all.length, "picture")}. ${kinds.filter(([, number]) => number).map(([title, number]) => `${title}: ${number}`).join(", ")}.`);
  } else if (queue.state === "unreachable" && progressSaid.state !== "unreachable") say("The server does not answer.");
  else if (queue.state === "running" && now - progressSaid.at > 8000) {
    progressSaid.at = now;
    say(`${count(pictures.all.length - left())} of ${plural(pictures.all.length, "picture")} looked at.`);
  }
  progressSaid.state = queue.state;
}

function taken(files, others) {
  if (files.length) add(files);
  const words = others ? `${plural(others, "other file")} in the folder ${others === 1 ? "was" : "were"} left out.` : files.length ? "" : "There was no picture in it.";
  byId("notice").textContent = words;
  if (files.length) say(`${plural(files.length, "picture")} added.`);
}

function pageKey(key) {
  if (document.querySelector("dialog[open]")) return false;
  const action = { o: () => byId("files").click(), "?": keys.help, f: openChecklist, ...(pictures.all.length ? { g: () => choose("pictures"), t: () => choose("table"), r: () => choose("review"), d: save } : {}) }[key];
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
  fill(byId("knows"), "It knows ", el("strong", {}, `${count(current.classes)} species`), current.novelty ? ", and says so when it is unsure or has never seen the like." : ", and says so when it is unsure.");
  fill(byId("private"), local ? "Your pictures stay on this computer: they go to the birder that runs here, are looked at, and are not kept."
    : ["Your pictures go to the birder at ", written("span", location.host), " and nowhere else: they are looked at, and are not kept."]);
  ask();
}

pictures.addEventListener("added", () => { draw(); go(); });
pictures.addEventListener("cleared", () => { forget(); single.clear(); review.clear(); look({ kind: null, words: "" }); byId("words").value = ""; draw(); });
pictures.addEventListener("changed", ({ detail }) => {
  if (detail.review) saved = false;
  gallery.update(detail);
  draw();
});
queue.addEventListener("changed", () => { draw(); tell(); });
pictures.addEventListener("changed", tell);
sight.addEventListener("changed", draw);
models.addEventListener("changed", describe);
species.addEventListener("changed", () => { for (const picture of pictures.all) gallery.update(picture); if (models.current) drawChoosers(failed); draw(); });
checklist.addEventListener("changed", () => { ask(); draw(); });
server.addEventListener("hold", ({ detail }) => {
  clearTimeout(holding);
  holding = setTimeout(() => { holding = null; draw(); }, 1000 * detail);
  draw();
});
window.addEventListener("online", () => { if (queue.state === "unreachable") go(); });
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });

byId("kinds").append(...Object.entries({ all: "All", ...KINDS }).map(([kind, title]) =>
  button([`${title} `, el("span", { class: "number" })], () => look({ kind: kind === "all" ? null : kind }), { "data-kind": kind, hidden: true })));
byId("act").addEventListener("click", ({ target }) => ACTS[target.textContent]());
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
keys.listen([
  (key) => byId("picture").open && pictureKey(key),
  (key) => view === "review" && !document.querySelector("dialog[open]") && pictures.all.length > 0 && review.key(key),
  pageKey,
]);
choosing.listen(taken);
draw();
connect();

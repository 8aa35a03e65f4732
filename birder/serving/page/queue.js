// Sends pictures to the server, a few at a time, one in each request: so each has its own answer as soon as there is one.

import { change, pictures } from "./pictures.js";
import { ask, isUp, Refused, Unreachable } from "./server.js";
import { refusalOf } from "./words.js";

const AT_ONCE = 4;
const NEIGHBOURS = 4;
const TRIES = 3;

/** Event: `changed`. State: idle, running, stopped, unreachable, refused (a token is needed), unasked (there is no question). */
export const queue = Object.assign(new EventTarget(), { state: "idle", begun: 0, answered: 0, question: null });

let run = null; // {stopper, workers}; each has its own, as those that were stopped end a little later

/**
 * From now on ask this; whatever has another answer is asked again.
 *
 * @param question null (nothing can be asked), or {model, least: the score below which it is unsure, top, similar, labels: the checklist's or null, key: equal for equal questions}
 */
export function pose(question) {
  const asked = queue.question;
  queue.question = question;
  if (asked?.key === question?.key) return;
  const stopped = queue.state === "stopped";
  stop();
  for (const picture of pictures.all) if (picture.asked !== question?.key || picture.state === "failed") change(picture, { state: "waiting" });
  if (!question) become("unasked");
  else if (!stopped) go();
}

/** Send what waits, also such as came in while others are under way. */
export function go() {
  if (!queue.question) return;
  if (queue.state !== "running") {
    if (!next()) return become("idle");
    Object.assign(queue, { begun: Date.now(), answered: 0 });
    run = { stopper: new AbortController(), workers: 0 };
    become("running");
  }
  while (run.workers < AT_ONCE && next()) work(run);
}

/** Leave the rest for later. */
export function stop(state = "stopped") {
  if (queue.state !== "running") return;
  become(state);
  run.stopper.abort();
  for (const picture of pictures.all) if (picture.state === "sending") change(picture, { state: "waiting" });
}

/** Try those again that have no answer, or one of them. */
export function retry(picture = null) {
  for (const each of picture ? [picture] : pictures.all) if (each.state === "failed") change(each, { state: "waiting", failure: "" });
  go();
}

export const left = () => pictures.all.reduce((sum, { state }) => sum + (state === "waiting" || state === "sending"), 0);

function become(state) {
  queue.state = state;
  queue.dispatchEvent(new CustomEvent("changed"));
}

const next = () => pictures.all.find(({ state }) => state === "waiting");

/** Send one picture after the other, until none waits. */
async function work(mine) {
  const { signal } = mine.stopper;
  mine.workers++;
  for (let picture; !signal.aborted && (picture = next()); ) {
    change(picture, { state: "sending" });
    try {
      await answer(picture, queue.question, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Unreachable) return stop("unreachable");
      if (error.status === 401) return stop("refused");
      change(picture, { state: "failed", failure: refusalOf(error) });
    }
    queue.answered++;
  }
  if (!--mine.workers && !signal.aborted) become("idle");
}

async function answer(picture, question, signal) {
  const { model, least, top, similar } = question;
  const query = { model, min_score: least, top, similar: similar ? NEIGHBOURS : null };
  const response = await send("v1/predict", picture, { query, signal, labels: question.labels });
  const { rows: [row] } = await response.json();
  if (signal.aborted) return; // another question has been posed meanwhile
  change(picture, { state: "done", row, asked: question.key, model, failure: "" });
}

/**
 * Send a picture. A request that breaks is no proof that the server is gone: the file may be, or be too large for it.
 *
 * @throws Refused, Unreachable, AbortError, or an Error that says what is wrong with the file
 */
export async function send(path, picture, { labels = null, ...how }) {
  for (let tries = 1; ; tries++) {
    const body = new FormData();
    body.append("picture", picture.file, picture.file.name || "picture");
    if (labels) body.append("checklist", labels.join("\n"));
    try {
      return await ask(path, { method: "POST", body, ...how });
    } catch (error) {
      if (!(error instanceof Unreachable) || !await isUp()) throw error;
      if (!await isReadable(picture.file)) throw new Error("The file is no longer there, or it has changed since it was chosen. Choose it again.");
      if (tries >= TRIES) throw new Refused({ status: 0, detail: "The server ended the connection while the picture was sent; it may be too large for it." });
    }
  }
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

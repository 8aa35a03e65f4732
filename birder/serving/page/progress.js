// How far it is: a bar, some words, and the one thing that can be done about it.

import { byId, put, say } from "./dom.js";
import { pictures } from "./pictures.js";
import { go, left, queue, retry, stop } from "./queue.js";
import { server } from "./server.js";
import { count, duration, KINDS, kindOf, plural } from "./words.js";

const SAID_AGAIN_MS = 8000;
const KNOWN = 5; // answers before it is said how long the rest takes

const ACTS = { Stop: () => stop(), "Try again": () => (queue.state === "idle" ? retry() : go()), "Go on": go, "Give it": go };

let holding = null; // timer while the server wants time
const said = { state: "", at: 0 };

byId("act").addEventListener("click", ({ target }) => ACTS[target.textContent]());
server.addEventListener("hold", ({ detail }) => {
  clearTimeout(holding);
  holding = setTimeout(() => { holding = null; drawProgress(); }, 1000 * detail.seconds);
  drawProgress();
});

/** Show it. Elements stay, so that no click falls between an old one and a new one. */
export function drawProgress() {
  const total = pictures.all.length, open = left();
  Object.assign(byId("bar"), { hidden: queue.state !== "running", max: Math.max(1, total), value: total - open });
  const [title, words, act] = inWords(total, open);
  put(byId("progress-title"), title);
  put(byId("progress-words"), words);
  put(byId("act"), act);
  byId("act").hidden = !act;
  byId("progress").className = queue.state;
  document.title = queue.state === "running" ? `${total - open} of ${total} – birder` : "birder";
}

/** [what is wrong, the rest, the name of the act]; empty for what there is not */
function inWords(total, open) {
  if (queue.state === "running") return [holding ? "The server is busy; it goes on in a moment." : "", howFar(total, open), "Stop"];
  if (queue.state === "unreachable") {
    const waiting = `It may have been stopped, or the network is down. ${plural(open, "picture")} waiting; nothing is lost.`;
    return ["The server does not answer.", waiting, "Try again"];
  }
  if (queue.state === "refused") return ["The server wants a token.", "", "Give it"];
  if (queue.state === "stopped" && open) return ["Stopped.", `${plural(open, "picture")} not looked at yet.`, "Go on"];
  const failed = pictures.all.filter(({ state }) => state === "failed").length;
  return failed ? [`${plural(failed, "picture")} without an answer.`, "", "Try again"] : ["", "", ""];
}

function howFar(total, open) {
  const seconds = queue.answered < KNOWN ? 0 : ((Date.now() - queue.begun) / 1000 / queue.answered) * open;
  return `${count(total - open)} of ${count(total)} looked at${seconds > 5 ? `, about ${duration(seconds)} left` : ""}`;
}

/** Tell screen readers how far it is, now and then, and when it is over. */
export function tellProgress() {
  const now = Date.now();
  if (queue.state === "idle" && said.state === "running") {
    const kinds = Object.entries(KINDS).map(([kind, title]) => [title, pictures.all.filter((picture) => kindOf(picture) === kind).length]);
    say(`Done: ${plural(pictures.all.length, "picture")}. ${kinds.filter(([, number]) => number).map((pair) => pair.join(": ")).join(", ")}.`);
  } else if (queue.state === "unreachable" && said.state !== "unreachable") say("The server does not answer.");
  else if (queue.state === "running" && now - said.at > SAID_AGAIN_MS) {
    said.at = now;
    say(`${count(pictures.all.length - left())} of ${plural(pictures.all.length, "picture")} looked at.`);
  }
  said.state = queue.state;
}

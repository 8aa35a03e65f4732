// One picture with all that was said of it: beside each other where there is room, in the page or in a dialog.

import { button, byId, el, fill, keyButton, open, written } from "./dom.js";
import { bars, decision, eyebrow, facts, inWords, meaning } from "./answers.js";
import { framed } from "./frame.js";
import { pictures } from "./pictures.js";
import { retry } from "./queue.js";
import { ask } from "./server.js";
import { nameAndLabel, nameOf, species } from "./species.js";
import { percent } from "./words.js";

/**
 * Shows one picture at a time in an element, and follows what becomes of it.
 *
 * @param element where
 * @param options heading: the tag of the name; numbered: whether the answers have keys; after(picture): what follows them
 */
export class Detail {
  constructor(element, { heading = "h3", numbered = false, after = () => [] } = {}) {
    Object.assign(this, { element, heading, numbered, after, picture: null, frame: null, urls: [] });
    pictures.addEventListener("changed", ({ detail }) => { if (detail === this.picture) this.follow(); });
    species.addEventListener("changed", () => { if (this.picture) this.draw(); });
  }

  show(picture) {
    this.picture = picture;
    this.draw();
  }

  /** Draw again only what another answer makes different: a decision of a person leaves the picture as it is. */
  follow() {
    const { row, state, best } = this.picture;
    if (this.drawn === row && this.state === state) this.words?.querySelector(".decision")?.replaceChildren(decision(this.picture));
    else if (row || state === "failed" || best) this.draw();
  }

  draw() {
    this.release();
    const { picture } = this;
    Object.assign(this, { drawn: picture.row, state: picture.state, frame: framed(picture) });
    this.words = el("div", { class: "said" }, said(picture, this), this.similar(), facts(picture));
    fill(this.element, this.frame.element, this.words);
  }

  clear() {
    this.release();
    this.picture = null;
    fill(this.element);
  }

  release() {
    for (const image of this.element.querySelectorAll("img")) image.removeAttribute("src"); // else one that still loads fails, and counts as none that can be shown
    this.frame?.release();
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
  }

  /** Pictures of the server's index that the network takes for similar. They are fetched as data, as they may need the token. */
  similar() {
    const found = this.picture.row?.similar ?? [];
    if (!found.length) return null;
    const list = el("ul", { class: "similar" }, found.map(({ picture, label, name, similarity }) => {
      const image = el("img", { alt: "", width: 96, height: 96 });
      this.fetch(picture, image);
      return el("li", { title: name }, image, written("span", nameOf(label) || name), el("span", { class: "soft" }, percent(similarity)));
    }));
    return [el("h4", {}, "Similar pictures"), list];
  }

  async fetch(number, image) {
    try {
      const response = await ask(`v1/models/${encodeURIComponent(this.picture.model)}/pictures/${number}`, { accept: "image/jpeg" });
      const url = URL.createObjectURL(await response.blob());
      if (!image.isConnected) return URL.revokeObjectURL(url);
      this.urls.push(url);
      image.src = url;
    } catch { image.classList.add("missing"); }
  }
}

function said(picture, { heading, numbered, after }) {
  const { row, best, state } = picture;
  const over = eyebrow(picture);
  const answered = best && row.status !== "error" && state !== "failed";
  return [
    over && el("p", { class: `eyebrow ${state === "failed" ? "failed" : row?.status ?? ""}` }, over),
    answered ? el(heading, { class: "species" }, row.status === "unsure" && el("span", { class: "perhaps" }, "Perhaps "),
      row.status === "not_in_list" ? "An unknown one" : nameAndLabel("span", best.label))
      : el(heading, { class: "species" }, written("span", picture.name)),
    el("p", { class: "meaning", dir: "auto" }, meaning(picture)),
    answered && bars(row.answers, { numbered }),
    state === "failed" && button("Try again", () => retry(picture)),
    el("p", { class: "decision" }, decision(picture)),
    after(picture),
  ];
}

let dialog = null; // {detail, list, place}

/** The dialog: one of these pictures, with the way to its neighbours. */
export function openPicture(picture, list) {
  const element = byId("picture");
  if (!dialog) {
    const body = el("div", { class: "detail" });
    dialog = { body, detail: new Detail(body), where: el("span", { class: "soft", "aria-live": "polite" }) };
    element.addEventListener("close", () => dialog.detail.clear());
  }
  Object.assign(dialog, { list, place: list.indexOf(picture) });
  open(element, "Picture", dialog.body, list.length > 1 && el("div", { class: "steps" },
    keyButton("Previous", "←", () => step(-1), { "aria-keyshortcuts": "ArrowLeft" }), dialog.where, keyButton("Next", "→", () => step(1), { "aria-keyshortcuts": "ArrowRight" })));
  step(0);
  element.querySelector("h2").focus();
}

function step(by) {
  const { list, detail, where } = dialog;
  dialog.place = (dialog.place + by + list.length) % list.length;
  detail.show(list[dialog.place]);
  const picture = list[dialog.place];
  fill(where, `${dialog.place + 1} of ${list.length}`, el("span", { class: "unseen" }, `: ${picture.name}: ${inWords(picture)}`));
}

/** A key that was pressed while the dialog is open; whether it was used. */
export function pictureKey(key) {
  if (key === "ArrowLeft") step(-1);
  else if (key === "ArrowRight") step(1);
  else if (key === "x") dialog.detail.frame.toggle();
  else return false;
  return true;
}

// Reviewing by hand: a person accepts or corrects the answers, the least certain first.

import { Detail } from "./detail.js";
import { button, el, fill, keyButton, put, say } from "./dom.js";
import { change, pictures } from "./pictures.js";
import { inWords } from "./answers.js";
import { searchBox } from "./search.js";
import { nameOf } from "./species.js";
import { count, plural } from "./words.js";

/** How certain an answer is, for the order. What is on no list has no probability that means anything. */
const certainty = ({ row, best }) => (row.status === "not_in_list" ? 0 : best.score);

/** What is asked again has the answer to another question for now, which nobody should accept. */
const reviewable = ({ state, row }) => state === "done" && Boolean(row?.answers.length);

export class Review {
  constructor(element) {
    Object.assign(this, { element, picture: null, done: [] }); // done: what can be undone
    this.progress = el("p", { class: "progress-words", role: "status" });
    this.body = el("div", { class: "detail" });
    this.detail = new Detail(this.body, { numbered: true, after: () => this.actions() });
    this.ended = el("div", { class: "ended" });
    fill(element, this.progress, this.body, this.ended);
  }

  /** Begin, or go on: the picture that is shown stays until it has been decided. */
  show() {
    const all = pictures.all.filter(reviewable);
    const open = all.filter(({ review }) => !review);
    const reviewed = `${count(all.length - open.length)} of ${plural(all.length, "answer")} reviewed, the least certain first`;
    put(this.progress, all.length ? reviewed : "");
    if (this.picture && !this.picture.review && open.includes(this.picture)) {
      if (this.detail.picture !== this.picture) this.detail.show(this.picture);
      return;
    }
    this.picture = open.sort((a, b) => certainty(a) - certainty(b))[0] ?? null;
    if (this.picture) this.detail.show(this.picture);
    else this.detail.clear();
    fill(this.ended, !this.picture && this.end(all));
  }

  end(all) {
    if (!all.length) return el("p", { class: "soft" }, "There is nothing to review yet.");
    const of = (kind) => all.filter(({ review }) => review === kind).length;
    return [
      el("h3", { tabindex: -1 }, "All reviewed"),
      el("p", {}, `${count(of("accepted"))} accepted, ${count(of("corrected"))} corrected, ${count(of("skipped"))} skipped. `,
        "The table that you download has your decisions in its last two columns."),
      el("div", { class: "actions" }, keyButton("Undo", "z", () => this.undo()),
        of("skipped") > 0 && button("Look at the skipped ones again", () => this.unskip())),
    ];
  }

  actions() {
    this.search = searchBox("It is another species", (name) => this.decide("corrected", name), { free: true, placeholder: "Type its name" });
    return el("div", { class: "decide" },
      el("div", { class: "actions" },
        keyButton("Accept", "a", () => this.decide("accepted", this.picture.best.label), { class: "primary" }),
        keyButton("Skip", "s", () => this.decide("skipped")),
        keyButton("Undo", "z", () => this.undo(), { disabled: !this.done.length })),
      this.search,
      el("p", { class: "soft keys" }, el("kbd", {}, "1"), " to ", el("kbd", {}, String(this.picture.row.answers.length)), " take an answer, ",
        el("kbd", {}, "c"), " corrects, ", el("kbd", {}, "?"), " shows all keys."));
  }

  decide(review, label = "") {
    const { picture } = this;
    if (!picture || !reviewable(picture)) return; // since a moment ago it is asked again, which is not drawn yet
    this.done.push([picture, picture.review, picture.reviewedLabel]);
    change(picture, { review, reviewedLabel: label });
    this.next(`${picture.name} ${review}${label ? `: ${nameOf(label)}` : ""}.`);
  }

  undo() {
    const [picture, review, reviewedLabel] = this.done.pop() ?? [];
    if (!picture || !pictures.all.includes(picture)) return;
    change(picture, { review, reviewedLabel });
    this.picture = picture;
    this.detail.show(picture);
    fill(this.ended);
    this.next(`${picture.name} is open again.`);
  }

  unskip() {
    for (const picture of pictures.all) if (picture.review === "skipped") change(picture, { review: "" });
    this.next("The skipped ones are open again.");
  }

  /** The next picture, said aloud; the focus stays with the decision, for the next one. */
  next(what) {
    this.show();
    say(this.picture ? `${what} Next: ${this.picture.name}, ${inWords(this.picture)}` : `${what} All are reviewed.`);
    (this.element.querySelector(".decide .primary") ?? this.ended.querySelector("h3"))?.focus({ preventScroll: true });
  }

  /** A key that was pressed while reviewing; whether it was used. */
  key(key) {
    if (key === "z") this.undo();
    else if (!this.picture) return false;
    else if (key === "a") this.decide("accepted", this.picture.best.label);
    else if (key === "s") this.decide("skipped");
    else if (key === "c") this.search.querySelector("input").focus();
    else if (key === "x") this.detail.frame.toggle();
    else if (/^[1-5]$/.test(key)) this.take(Number(key) - 1);
    else return false;
    return true;
  }

  take(rank) {
    const answer = this.picture.row.answers[rank];
    if (answer) this.decide(rank ? "corrected" : "accepted", answer.label);
  }

  clear() {
    Object.assign(this, { picture: null, done: [] });
    this.detail.clear();
  }
}

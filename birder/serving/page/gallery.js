// All pictures as cards: each with its name, and how sure that is.

import { bar, bars, decision, eyebrow, inWords, meaning } from "./answers.js";
import { button, el, fill, written } from "./dom.js";
import { openPicture } from "./detail.js";
import { nameAndLabel } from "./species.js";
import { thumbnail, unwanted } from "./thumbnails.js";
import { percent } from "./words.js";

const NAMED = 3; // species on a card

export class Gallery {
  constructor(element) {
    this.element = element;
    this.cards = new Map(); // picture -> card
    this.list = [];
    this.current = null; // the card that Tab reaches; arrows go from one to the next
    this.watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.sighted(target.card, isIntersecting);
    }, { rootMargin: "400px" });
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("focusin", ({ target }) => { if (target.card) this.reach(target.card); });
  }

  /** Show these, and no others. */
  show(list) {
    this.list = list;
    const wanted = new Set(list);
    for (const [picture, card] of this.cards) {
      if (wanted.has(picture)) continue;
      this.watcher.unobserve(card.button);
      card.item.remove();
      this.cards.delete(picture);
    }
    const items = list.map((picture) => this.cardOf(picture).item);
    const differs = items.length !== this.element.childElementCount || items.some((item, place) => item !== this.element.children[place]);
    if (differs) this.element.replaceChildren(...items);
    if (!this.cards.has(this.current?.picture)) this.reach(this.cards.get(list[0]) ?? null);
  }

  cardOf(picture) {
    if (this.cards.has(picture)) return this.cards.get(picture);
    const image = el("span", { class: "thumb" });
    const words = el("span", { class: "words" });
    const opener = button([image, words], () => openPicture(picture, this.list), { class: "card", tabindex: -1 });
    const card = { picture, image, words, button: opener, item: el("li", {}, opener), inSight: false };
    opener.card = card;
    this.cards.set(picture, card);
    this.watcher.observe(opener);
    this.update(picture);
    return card;
  }

  sighted(card, inSight) {
    card.inSight = inSight;
    if (inSight) this.illustrate(card);
    else {
      unwanted(card.picture);
      card.image.replaceChildren(); // it is made again, or still there, when it comes back
    }
  }

  async illustrate(card) {
    const url = await thumbnail(card.picture);
    if (!card.inSight) return;
    if (url) {
      if (card.image.firstChild?.src === url) return;
      const image = el("img", { alt: "", src: url });
      fill(card.image, image);
    } else {
      fill(card.image, written("span", card.picture.name.match(/\.(\w{1,5})$/)?.[1]?.toUpperCase() ?? "?", { class: "kind" }));
    }
  }

  update(picture) {
    const card = this.cards.get(picture);
    if (!card) return;
    const { row, state } = picture;
    const kind = state === "failed" ? "failed" : row?.status ?? "waiting";
    card.button.className = `card ${kind} ${state}`;
    card.button.setAttribute("aria-label", `${picture.name}: ${inWords(picture)}${picture.review ? `; ${decision(picture)}` : ""}`);
    fill(card.words, ...(row?.answers.length && state !== "failed" ? answered(picture) : unanswered(picture)),
      picture.review && el("span", { class: `decision ${picture.review}` }, decision(picture)));
    if (card.inSight && !card.image.querySelector("img")) this.illustrate(card);
  }

  reach(card) {
    if (this.current) this.current.button.tabIndex = -1;
    this.current = card;
    if (card) card.button.tabIndex = 0;
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const place = this.list.indexOf(event.target.card?.picture);
    if (place < 0) return;
    const across = Math.max(1, this.list.findIndex((picture, number) => number > 0 && this.cards.get(picture).item.offsetTop > this.cards.get(this.list[0]).item.offsetTop));
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, ArrowDown: place + across, ArrowUp: place - across, Home: 0, End: this.list.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.cards.get(this.list[Math.min(Math.max(to, 0), this.list.length - 1)]).button.focus();
  }
}

function answered({ row, best }) {
  const over = eyebrow({ row });
  const known = row.status !== "not_in_list";
  return [
    over && el("span", { class: `eyebrow ${row.status}` }, known ? `${over}, perhaps` : over),
    known ? el("span", { class: "best" },
      el("span", { class: "species" }, nameAndLabel("span", best.label)),
      el("span", { class: "value" }, percent(best.score)), bar(best.score))
      : el("span", { class: "species unknown" }, "An unknown one"),
    bars(row.answers.slice(known ? 1 : 0, NAMED), { plain: true }),
  ];
}

function unanswered(picture) {
  return [
    el("span", { class: `eyebrow ${picture.row?.status ?? picture.state}` }, eyebrow(picture)),
    written("span", picture.name, { class: "file" }),
    picture.row || picture.failure ? el("span", { class: "meaning" }, meaning(picture)) : null,
  ];
}

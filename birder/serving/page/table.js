// All results as a table: only the rows in sight exist, so that thousands sort at once.

import { bar, decision } from "./answers.js";
import { openPicture } from "./detail.js";
import { button, el, fill, written } from "./dom.js";
import { nameAndLabel, nameOf, species } from "./species.js";
import { thumbnail } from "./thumbnails.js";
import { detailOf, KINDS, kindOf, moment, percent, reasonOf } from "./words.js";

const ROW = 56; // pixels; page.css has the same
const SPARE = 8; // rows above and below the sight

const COLUMNS = [
  { title: "Picture", width: 17, value: ({ path }) => path },
  { title: "Species", width: 15, value: ({ best }) => best && nameOf(best.label), cell: ({ best }) => best && nameAndLabel("span", best.label) },
  { title: "Probability", width: 9, value: ({ best }) => best?.score, cell: ({ best }) => best && [bar(best.score), percent(best.score)] },
  { title: "Answer", width: 9, value: (picture) => KINDS[kindOf(picture)], cell: verdict },
  { title: "Reviewed", width: 12, value: ({ review }) => review || null, cell: (picture) => written("span", decision(picture)) },
  { title: "Taken", width: 12.5, value: ({ row }) => row?.taken || null, cell: ({ row }) => row?.taken && moment(row.taken) },
];

function verdict(picture) {
  const kind = kindOf(picture);
  return el("span", { class: `verdict ${kind}` }, KINDS[kind]);
}

/** Cells behind the picture's. Where there is no answer, the reason has the room of species and probability. */
function cellsOf(picture) {
  const why = { error: picture.row && reasonOf(picture.row), failed: picture.failure }[kindOf(picture)];
  const cells = COLUMNS.slice(why ? 3 : 1).map(({ cell }) => el("td", {}, cell(picture)));
  return why ? [el("td", { colspan: 2, title: `${why} ${picture.row ? detailOf(picture.row) : ""}`.trim(), dir: "auto" }, why), ...cells] : cells;
}

const texts = new Intl.Collator(undefined, { numeric: true });
const unknown = (value) => value === null || value === undefined;

/** Order of two cells: numbers by size, texts as a dictionary has them, what is unknown last in either direction. */
function compare(a, b, sign) {
  if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
  return sign * (typeof a === "string" ? texts.compare(a, b) : a - b);
}

export class Table {
  constructor(element) {
    Object.assign(this, { list: [], rows: [], sort: null, reached: 0, lines: new Map() });
    this.heads = COLUMNS.map(({ title }, place) => el("th", { scope: "col", "aria-sort": "none" },
      button([title, el("span", { class: "arrow", "aria-hidden": "true" })], () => this.sortBy(place))));
    this.body = el("tbody");
    this.table = el("table", {}, el("caption", { class: "unseen" }, "All results"), el("colgroup", {}, COLUMNS.map(({ width }) => {
      const column = el("col");
      column.style.width = `${width}rem`;
      return column;
    })), el("thead", {}, el("tr", { "aria-rowindex": 1 }, this.heads)), this.body);
    this.scroll = el("div", { class: "scroll", role: "region", "aria-label": "All results", tabindex: 0, on: {
      scroll: () => this.draw(), keydown: (event) => this.key(event),
    } }, this.table);
    fill(element, this.scroll);
  }

  show(list) {
    this.list = list;
    this.arrange();
  }

  sortBy(place) {
    this.sort = this.sort?.[0] === place ? [place, -this.sort[1]] : [place, 1];
    this.heads.forEach((head, number) => {
      head.setAttribute("aria-sort", number !== place ? "none" : this.sort[1] > 0 ? "ascending" : "descending");
    });
    this.scroll.scrollTop = 0;
    this.arrange();
  }

  arrange() {
    this.rows = [...this.list];
    if (this.sort) {
      const [place, sign] = this.sort;
      const keyed = this.rows.map((picture) => [COLUMNS[place].value(picture), picture]);
      this.rows = keyed.sort(([a], [b]) => compare(a, b, sign)).map(([, picture]) => picture);
    }
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.reached = Math.min(this.reached, Math.max(0, this.rows.length - 1));
    this.draw();
  }

  /** Put the rows into the page that are in sight. What is there already stays, and with it the focus. */
  draw() {
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - SPARE);
    const last = Math.min(this.rows.length, first + Math.ceil((this.scroll.clientHeight || 600) / ROW) + 2 * SPARE);
    const lines = new Map(this.rows.slice(first, last).map((picture, place) => [picture, this.kept(picture, first + place)]));
    this.lines = lines;
    const rows = [this.gap(first), ...[...lines.values()].map(({ element }) => element), this.gap(this.rows.length - last)].filter(Boolean);
    const there = [...this.body.children];
    if (rows.length === there.length && rows.every((row, place) => row === there[place] || (row.className === "gap" && row.isEqualNode(there[place])))) return;
    const focused = this.body.contains(document.activeElement);
    this.body.replaceChildren(...rows);
    if (focused) this.focus();
  }

  /** The line of a picture, made again only if there is something new. */
  kept(picture, place) {
    const { row, state, review, reviewedLabel } = picture;
    const content = [row, state, review, reviewedLabel, place, place === this.reached, species.language];
    const kept = this.lines.get(picture);
    return kept?.content.every((part, number) => part === content[number]) ? kept : { content, element: this.line(picture, place) };
  }

  line(picture, place) {
    const image = el("span", { class: "thumb" });
    thumbnail(picture).then((url) => { if (url) fill(image, el("img", { src: url, alt: "" })); });
    const opener = button(written("span", picture.path), () => openPicture(picture, this.rows), { class: "opener", "data-place": place, tabindex: place === this.reached ? 0 : -1 });
    return el("tr", { "aria-rowindex": place + 2, on: { click: ({ target }) => { if (!opener.contains(target)) opener.click(); } } }, el("th", { scope: "row", title: picture.path }, image, opener),
      cellsOf(picture));
  }

  gap(rows) {
    if (!rows) return null;
    const cell = el("td", { colspan: COLUMNS.length });
    cell.style.height = `${rows * ROW}px`;
    return el("tr", { class: "gap", "aria-hidden": "true" }, cell);
  }

  key(event) {
    if (!event.target.dataset.place) return;
    const to = { ArrowDown: this.reached + 1, ArrowUp: this.reached - 1, Home: 0, End: this.rows.length - 1 }[event.key];
    if (to === undefined) { this.reached = Number(event.target.dataset.place); return; }
    event.preventDefault();
    this.reached = Math.min(Math.max(to, 0), this.rows.length - 1);
    const top = this.reached * ROW, head = this.heads[0].offsetHeight;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    const below = top + ROW + head - this.scroll.clientHeight;
    if (below > this.scroll.scrollTop) this.scroll.scrollTop = below;
    this.draw();
    this.focus();
  }

  focus() {
    this.body.querySelector(`[data-place="${this.reached}"]`)?.focus({ preventScroll: true });
  }
}

// Tables of any length: only the rows that are in sight exist, so that ten thousand sort at once.

const ROW = 38; // pixels; page.css has the same
const SPARE = 12; // rows above and below the sight
const PRINTED = 2000; // rows

class Table {
  /**
   * @param caption what the table shows
   * @param columns [{title, value(row) for sorting, cell(row) for showing (the value if left out), number, width}]
   * @param rows    anything
   * @param options sort: [column, sign]; words(row): what the filter looks into; noun: what a row is
   */
  constructor(caption, columns, rows, { sort = [0, 1], words = null, noun = "rows" } = {}) {
    Object.assign(this, { columns, all: rows, rows, sort, words, noun, whole: false, first: -1 });
    this.heads = columns.map((column, index) =>
      el("th", { scope: "col", class: column.number ? "number" : null },
        el("button", { type: "button", on: { click: () => this.sortBy(index) } },
          column.title, el("span", { class: "arrow", "aria-hidden": "true" }))));
    this.body = el("tbody");
    this.table = el("table", { "aria-rowcount": rows.length + 1 },
      el("caption", { class: "unseen" }, caption),
      el("colgroup", {}, columns.map((column, index) => this.column(column, index))),
      el("thead", {}, el("tr", { "aria-rowindex": 1 }, this.heads)), this.body);
    this.scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption,
      on: { scroll: () => this.draw() } }, this.table);
    this.status = spoken("soft count");
    this.element = el("div", { class: "table" },
      words && el("div", { class: "tools" },
        el("label", {}, el("span", { class: "unseen" }, `Filter: ${caption}`),
          el("input", { type: "search", placeholder: "Filter by name", on: { input: (event) => this.filter(event.target.value) } })),
        this.status),
      this.scroll);
    Table.all.add(this);
    this.arrange();
  }

  column({ width }, index) {
    const column = el("col");
    column.style.width = index ? `${width}rem` : `min(${width}rem, 36vw)`; // the first one stays in sight on a phone
    return column;
  }

  sortBy(index) {
    const [column, sign] = this.sort;
    this.sort = [index, index === column ? -sign : this.columns[index].number ? -1 : 1];
    this.arrange();
  }

  filter(text) {
    const wanted = text.trim().toLocaleLowerCase("en");
    this.rows = wanted ? this.all.filter((row) => this.words(row).toLocaleLowerCase("en").includes(wanted)) : this.all;
    this.arrange();
  }

  arrange() {
    const [index, sign] = this.sort;
    const { value } = this.columns[index];
    const keyed = this.rows.map((row) => [value(row), row]);
    this.rows = keyed.sort(([a], [b]) => compare(a, b, sign)).map(([, row]) => row);
    this.heads.forEach((head, number) => {
      head.setAttribute("aria-sort", number !== index ? "none" : sign > 0 ? "ascending" : "descending");
    });
    this.table.setAttribute("aria-rowcount", this.rows.length + 1);
    this.status.textContent = this.rows.length === this.all.length
      ? `${count(this.all.length)} ${this.noun}` : `${count(this.rows.length)} of ${count(this.all.length)} ${this.noun}`;
    this.scroll.scrollTop = 0;
    this.draw(true);
  }

  /** Put the rows into the page that are in sight; all of them, up to a limit, for printing. */
  draw(anew = false) {
    const seen = Math.ceil((this.scroll.clientHeight || 600) / ROW);
    const first = this.whole ? 0 : Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - SPARE);
    if (!anew && Math.abs(first - this.first) < SPARE / 2) return;
    this.first = first;
    const last = Math.min(this.rows.length, this.whole ? PRINTED : first + seen + 2 * SPARE);
    const rows = this.rows.slice(first, last).map((row, index) => this.line(row, first + index));
    const left = this.rows.length - last;
    this.body.replaceChildren(...[this.gap(first), ...rows, this.whole ? null : this.gap(left)].filter(Boolean));
    if (this.whole && left) {
      this.body.append(el("tr", {}, el("td", { colspan: this.columns.length }, `and ${count(left)} more`)));
    }
  }

  line(row, index) {
    return el("tr", { "aria-rowindex": index + 2, class: index % 2 ? "odd" : null }, this.columns.map((column, number) => {
      const content = column.cell ? column.cell(row) : column.value(row);
      return number === 0
        ? el("th", { scope: "row", title: String(column.value(row)) }, content)
        : el("td", { class: column.number ? "number" : null }, content);
    }));
  }

  gap(rows) {
    if (!rows) return null;
    const cell = el("td", { colspan: this.columns.length });
    cell.style.height = `${rows * ROW}px`;
    return el("tr", { class: "gap", "aria-hidden": "true" }, cell);
  }

  print(whole) {
    this.whole = whole;
    this.draw(true);
  }
}
Table.all = new Set();

/** A share of one as a number on a quiet bar. */
function shareCell(value) {
  if (!known(value)) return el("span", { class: "soft" }, "–");
  const bar = el("span", { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--share", value);
  return [bar, percent(value)];
}

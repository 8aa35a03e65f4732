// Charts of a few dozen numbers, as SVG: an interval, calibration, accuracy against coverage, bars.

/** A figure with its interval on a line from 0 to 1. */
function intervalBar(value, low, high) {
  const at = (share) => 1 + 98 * share;
  return svg("svg", { class: "interval", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { class: "rail", x1: 0, x2: 100, y1: 4, y2: 4 }),
    known(low) && svg("line", { class: "span", x1: at(low), x2: at(high), y1: 4, y2: 4 }),
    svg("line", { class: "mark", x1: at(value), x2: at(value), y1: 0, y2: 8 }));
}

/** Axes from 0 to 1, with a place for what is drawn on them. */
class Plot {
  constructor(label, xTitle, yTitle, { width = 480, height = 400 } = {}) {
    this.edge = { left: 52, right: 14, top: 14, bottom: 46 };
    Object.assign(this, { width, height });
    const ticks = [0, 0.25, 0.5, 0.75, 1];
    this.content = svg("g");
    this.element = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      ticks.map((tick) => [
        svg("line", { class: "grid", x1: this.x(0), x2: this.x(1), y1: this.y(tick), y2: this.y(tick) }),
        svg("text", { class: "tick", x: this.x(0) - 8, y: this.y(tick) + 4, "text-anchor": "end" }, `${100 * tick}`),
        svg("text", { class: "tick", x: this.x(tick), y: this.y(0) + 18, "text-anchor": "middle" }, `${100 * tick}`),
      ]).flat(),
      svg("text", { class: "title", x: (this.x(0) + this.x(1)) / 2, y: height - 6, "text-anchor": "middle" }, xTitle),
      svg("text", { class: "title", "text-anchor": "middle", transform: `translate(14 ${(this.y(0) + this.y(1)) / 2}) rotate(-90)` }, yTitle),
      this.content);
  }

  x(share) { return this.edge.left + share * (this.width - this.edge.left - this.edge.right); }
  y(share) { return this.height - this.edge.bottom - share * (this.height - this.edge.top - this.edge.bottom); }

  path(points, className) {
    const line = points.map(([x, y], index) => `${index ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`);
    return svg("path", { class: className, d: line.join("") });
  }
}

/** Confidence against accuracy: on the diagonal where probabilities mean what they say. */
function reliabilityChart(bins) {
  const plot = new Plot("Accuracy of the answers at each confidence; the table below has the numbers", "Confidence, %", "Right, %");
  const most = Math.max(...bins.map(([, , number]) => number), 1);
  const full = bins.filter(([, , number]) => number > 0);
  plot.content.append(plot.path([[0, 0], [1, 1]], "ideal"));
  for (const [, , number, confidence, accuracy] of full) {
    plot.content.append(svg("line", { class: "gap-line", x1: plot.x(confidence), x2: plot.x(confidence), y1: plot.y(confidence), y2: plot.y(accuracy) }));
  }
  plot.content.append(plot.path(full.map(([, , , confidence, accuracy]) => [confidence, accuracy]), "curve faint"));
  for (const [, , number, confidence, accuracy] of full) {
    plot.content.append(svg("circle", { class: "dot", cx: plot.x(confidence), cy: plot.y(accuracy), r: 3 + 8 * Math.sqrt(number / most) },
      svg("title", {}, `${pictures(number)}: ${percent(confidence)} sure on average, ${percent(accuracy)} right`)));
  }
  return plot.element;
}

function reliabilityTable(bins) {
  return plainTable("Calibration in numbers", ["Confidence", "Pictures", "Mean confidence", "Right"], bins.map(
    ([low, high, number, confidence, accuracy]) => [`${percent(low, 0)} to ${percent(high, 0)}`, count(number), percent(confidence), percent(accuracy)]));
}

/** Accuracy against coverage, with a slider for the least confidence that counts as an answer. */
function coverageChart({ threshold, coverage, accuracy }) {
  const plot = new Plot("Accuracy of the answers, by the part of the pictures that is answered", "Answered, %", "Right among these, %");
  const marker = svg("circle", { class: "dot strong", r: 7 });
  const guides = [svg("line", { class: "guide" }), svg("line", { class: "guide" })];
  plot.content.append(plot.path(coverage.map((share, index) => [share, accuracy[index]]), "curve"), ...guides, marker);
  const sentence = el("output", { class: "sentence", for: "threshold", "aria-live": "polite" });
  const slider = el("input", { type: "range", id: "threshold", min: 0, max: 0.99, step: 0.01, value: 0.8 });
  const set = () => {
    const least = Number(slider.value);
    const place = threshold.findLastIndex((value) => value >= least);
    const there = place >= 0;
    slider.setAttribute("aria-valuetext", `${percent(least, 0)} sure`);
    sentence.textContent = there
      ? `If it answers only above ${least.toFixed(2)}, it answers ${percent(coverage[place], 0)} of the pictures and is right in ${percent(accuracy[place], 0)} of these.`
      : `It is never as sure as ${least.toFixed(2)}.`;
    for (const shape of [marker, ...guides]) shape.setAttribute("visibility", there ? "visible" : "hidden");
    if (!there) return;
    const [x, y] = [plot.x(coverage[place]), plot.y(accuracy[place])];
    filled(marker, { cx: x, cy: y }, []);
    filled(guides[0], { x1: x, x2: x, y1: plot.y(0), y2: y }, []);
    filled(guides[1], { x1: plot.x(0), x2: x, y1: y, y2: y }, []);
  };
  slider.addEventListener("input", set);
  set();
  return [plot.element, el("div", { class: "slider" }, el("label", { for: "threshold" }, "Least confidence"), slider), sentence];
}

/** Horizontal bars with a word before and a number behind; negative ones go to the left. */
function bars(rows, { signed = false } = {}) {
  const most = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-9);
  return el("ul", { class: signed ? "bars signed" : "bars" }, rows.map(({ title, value, text, note }) => {
    const bar = el("span", { class: value < 0 ? "bar less" : "bar", "aria-hidden": "true" });
    bar.style.setProperty("--length", Math.abs(value) / most);
    return el("li", {}, el("span", { class: "title" }, title, note && el("small", {}, ` ${note}`)), bar, el("span", { class: "value" }, text));
  }));
}

/** A small table that needs no sorting. */
function plainTable(caption, heads, rows) {
  return el("div", { class: "plain", tabindex: 0, role: "region", "aria-label": caption }, el("table", {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, heads.map((head, index) => el("th", { scope: "col", class: index ? "number" : null }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, index) =>
      (index ? el("td", { class: "number" }, cell) : el("th", { scope: "row" }, cell))))))));
}

// The map of embeddings: each dot a picture; what looks alike to the network lies together.

const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#7a5c3e"]; // told apart by colour-blind eyes
const EDGE = 0.04; // of the width, left free around the dots
const NEAR = 14; // pixels at which a dot is meant

class EmbeddingMap {
  constructor(source) {
    this.map = source.map;
    const { x, y } = this.map, wide = Math.max(...x), high = Math.max(...y);
    this.ratio = Math.max(0.5, EDGE + (1 - EDGE) * high);
    this.dots = x.map((u, index) => ({
      index, u: 0.5 + (1 - EDGE) * (u - wide / 2), v: this.ratio / 2 + (1 - EDGE) * (y[index] - high / 2),
    }));
    this.place = new Map((source.orders.similar ?? source.orders.name).map((label, place) => [label, place]));
    this.families = report.families && this.commonest();
    this.by = "right";
    this.species = NOBODY;
    this.sheet = new Image();
    if (report.sprite) this.sheet.src = report.sprite.url;
    this.tile = new Map((report.sprite?.pictures ?? []).map((picture, place) => [picture, place]));
    this.readout = spoken();
    this.readout.textContent = "Point at a dot, or go from dot to dot with the arrow keys.";
    this.preview = el("canvas", { class: "preview", "aria-hidden": "true", width: 120, height: 120 });
    this.view = new View("Map of embeddings. Arrow keys go from picture to picture, plus and minus zoom, 0 shows all.", {
      draw: (context, view) => this.draw(context, view), point: (u, v) => this.point(u, v), key: (event) => this.key(event),
      centre: () => this.chosen && [this.chosen.u, this.chosen.v],
    }, { ratio: this.ratio });
    this.legend = el("p", { class: "legend soft" });
    this.element = el("div", { class: "map" }, this.tools(), this.legend, this.view.element,
      el("div", { class: "beside" }, this.preview, this.readout));
    this.explainColours();
  }

  tools() {
    const options = [["right", "Right or wrong"], ["species", "Species"]];
    if (this.families) options.splice(1, 0, ["family", "Family"]);
    const labels = [...new Set(this.map.label)].sort((a, b) => compare.texts(nameOf(a), nameOf(b)));
    const select = el("select", { on: { change: (event) => { this.species = Number(event.target.value); this.explainColours(); } } },
      el("option", { value: NOBODY }, "all species"), labels.map((label) => el("option", { value: label }, nameOf(label))));
    return el("div", { class: "tools" }, choice("Colour", options, this.by, (by) => { this.by = by; this.explainColours(); }),
      el("label", { class: "select" }, el("span", {}, "Show "), select), this.view.buttons);
  }

  commonest() {
    const total = new Map();
    for (const label of this.map.label) total.set(familyOf(label), (total.get(familyOf(label)) ?? 0) + 1);
    return [...total].sort((a, b) => b[1] - a[1]).slice(0, HUES.length).map(([name]) => name);
  }

  explainColours() {
    const keys = this.by === "right" ? [["good", "named right"], ["bad", "taken for another (triangles)"]] : [];
    this.legend.replaceChildren(...keys.flatMap(([name, text]) => [el("span", { class: `key ${name}` }), `${text} `]));
    if (this.by === "family") {
      for (const [index, name] of [...this.families.entries(), [HUES.length, "others"]]) {
        const key = el("span", { class: "key" });
        key.style.background = HUES[index] ?? colour("faint");
        this.legend.append(key, `${name} `);
      }
    }
    if (this.by === "species") this.legend.append("A colour for each species; those that are taken for each other have similar ones.");
    this.view.draw();
  }

  paint({ index }) {
    const { label, predicted } = this.map;
    if (this.by === "right") return colour(label[index] === predicted[index] ? "good" : "bad");
    if (this.by === "family") return HUES[this.families.indexOf(familyOf(label[index]))] ?? colour("faint");
    return `hsl(${Math.round(330 * (this.place.get(label[index]) ?? 0) / this.place.size)} 62% 52%)`;
  }

  draw(context, view) {
    const radius = 3.2 * Math.min(2.2, Math.sqrt(view.scale));
    const paints = new Map();
    for (const dot of this.dots) {
      const x = view.x(dot.u), y = view.y(dot.v);
      if (x < -9 || y < -9 || x > view.width + 9 || y > view.height + 9) continue;
      const shown = this.species === NOBODY || this.map.label[dot.index] === this.species;
      const wrong = this.map.label[dot.index] !== this.map.predicted[dot.index];
      const key = this.by === "right" ? wrong : this.by === "family" ? familyOf(this.map.label[dot.index]) : this.map.label[dot.index];
      if (!paints.has(key)) paints.set(key, this.paint(dot));
      context.fillStyle = shown ? paints.get(key) : colour("line");
      context.globalAlpha = shown ? 0.82 : 0.5;
      context.beginPath();
      if (wrong && shown) triangle(context, x, y, radius * 1.35);
      else context.arc(x, y, radius, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
    if (!this.chosen) return;
    context.strokeStyle = colour("ink");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(view.x(this.chosen.u), view.y(this.chosen.v), radius + 4, 0, 7);
    context.stroke();
  }

  point(u, v) {
    if (u === null) return;
    const far = NEAR / (this.view.side * this.view.scale);
    const [nearest, distance] = this.nearest((dot) => Math.hypot(dot.u - u, dot.v - v));
    if (nearest && distance < far) this.choose(nearest);
  }

  nearest(measure) {
    let best = null, least = Infinity;
    for (const dot of this.dots) {
      if (this.species !== NOBODY && this.map.label[dot.index] !== this.species) continue;
      const distance = measure(dot);
      if (distance < least) [best, least] = [dot, distance];
    }
    return [best, least];
  }

  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return false;
    const from = this.chosen ?? { u: 0.5, v: 0.5 * this.ratio };
    const [next] = this.nearest((dot) => { // ahead, and rather straight than aside
      const [right, down] = [dot.u - from.u, dot.v - from.v], ahead = right * way[0] + down * way[1];
      const aside = Math.abs(right * way[1]) + Math.abs(down * way[0]);
      return dot === this.chosen || ahead <= 0 ? Infinity : ahead + 3 * aside;
    });
    if (next) {
      this.choose(next);
      this.view.reveal(next.u, next.v);
    }
    return true;
  }

  choose(dot) {
    if (this.chosen === dot) return;
    this.chosen = dot;
    this.view.draw();
    const { label, predicted, confidence, pictures: numbers } = this.map, { index } = dot;
    const right = label[index] === predicted[index];
    this.readout.replaceChildren(el("strong", {}, nameOf(label[index])), familyOf(label[index]) ? ` (${familyOf(label[index])})` : "",
      right ? ", named right, " : ", taken for ", right ? "" : el("strong", {}, nameOf(predicted[index])), `${right ? "" : ", "}${percent(confidence[index], 0)}`);
    const { tile, columns } = report.sprite, place = this.tile.get(numbers[index]);
    const context = this.preview.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.sheet, (place % columns) * tile, Math.floor(place / columns) * tile, tile, tile, 0, 0, 120, 120);
    this.preview.dataset.picture = numbers[index];
  }
}

function triangle(context, x, y, radius) {
  context.moveTo(x, y - radius);
  context.lineTo(x + 0.87 * radius, y + 0.5 * radius);
  context.lineTo(x - 0.87 * radius, y + 0.5 * radius);
  context.closePath();
}

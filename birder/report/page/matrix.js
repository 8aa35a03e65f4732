// The confusion matrix: a row for what pictures show, a column for what they were taken for.

const ORDERS = { similar: "Similar together", family: "By family", name: "By name" };
const LEGIBLE = 10; // pixels from name to name

class Matrix {
  constructor(source) {
    const { confusion, orders } = source;
    this.orders = orders;
    this.total = new Map();
    confusion.label.forEach((label, row) => this.total.set(label, (this.total.get(label) ?? 0) + confusion.count[row]));
    this.cells = confusion.label.map((label, row) => ({
      label, predicted: confusion.predicted[row], count: confusion.count[row], share: confusion.count[row] / this.total.get(label),
    }));
    this.mistakes = this.cells.filter(({ label, predicted }) => label !== predicted).sort((a, b) => b.count - a.count || b.share - a.share);
    this.jump = -1;
    this.readout = spoken();
    this.view = new View("Confusion matrix. Arrow keys move from cell to cell, N and P go to the next and the previous mistake, plus and minus zoom, 0 shows all.", {
      draw: (context, view) => this.draw(context, view), point: (u, v) => this.point(u, v), key: (event) => this.key(event),
      centre: () => this.chosen && this.chosen.map((place) => (place + 0.5) / this.size),
    }, { margin: (width) => (width > 560 ? 150 : 14) });
    const names = Object.keys(orders);
    this.arrange(names[0]);
    this.element = el("div", { class: "matrix" },
      el("div", { class: "tools" }, names.length > 1 && choice("Order", names.map((name) => [name, ORDERS[name]]), names[0], (name) => this.arrange(name)), this.view.buttons),
      this.legend(),
      this.view.element, this.readout);
    this.say(null);
  }

  legend() {
    return el("p", { class: "legend soft" }, el("span", { class: "key good" }), "named right ", el("span", { class: "key bad" }), "taken for another; the darker, the larger the part of the species");
  }

  arrange(name) {
    this.order = this.orders[name];
    this.size = this.order.length;
    this.place = new Map(this.order.map((label, place) => [label, place]));
    this.chosen = null;
    for (const cell of this.cells) [cell.x, cell.y] = [this.place.get(cell.predicted), this.place.get(cell.label)];
    this.at = new Map(this.cells.map((cell) => [cell.y * this.size + cell.x, cell]));
    this.view.reset();
  }

  draw(context, view) {
    const { size } = this, step = view.side * view.scale / size, { margin, width, height } = view;
    const [good, bad, line, paper] = ["good", "bad", "line", "card"].map(colour);
    context.save();
    context.beginPath();
    context.rect(margin, margin, width - margin, height - margin);
    context.clip();
    context.fillStyle = paper;
    context.fillRect(margin, margin, width, height);
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(view.x(0), view.y(0));
    context.lineTo(view.x(1), view.y(1));
    if (step > 11) {
      for (let place = Math.floor(view.left * size); place <= Math.ceil((view.left + 1 / view.scale) * size); place++) {
        context.moveTo(view.x(place / size), margin);
        context.lineTo(view.x(place / size), height);
      }
      for (let place = Math.floor(view.top * size); place <= Math.ceil((view.top + 1 / view.scale) * size); place++) {
        context.moveTo(margin, view.y(place / size));
        context.lineTo(width, view.y(place / size));
      }
    }
    context.stroke();
    const side = Math.max(step - (step > 11 ? 1 : 0), 1.6); // of a cell: even one of a thousand can be seen
    for (const { label, predicted, share, x, y } of this.cells) {
      const left = view.x(x / size), top = view.y(y / size);
      if (left < margin - side || top < margin - side || left > width || top > height) continue;
      context.globalAlpha = 0.18 + 0.82 * Math.sqrt(share);
      context.fillStyle = label === predicted ? good : bad;
      context.fillRect(left + (step > 11 ? 0.5 : 0), top + (step > 11 ? 0.5 : 0), side, side);
    }
    context.globalAlpha = 1;
    this.drawChosen(context, view, step);
    context.restore();
    if (margin > 20) this.drawNames(context, view, step);
  }

  drawChosen(context, view, step) {
    if (!this.chosen) return;
    const [x, y] = this.chosen.map((place) => place / this.size);
    context.fillStyle = colour("ink");
    context.globalAlpha = 0.07;
    context.fillRect(view.x(x), view.margin, step, view.height);
    context.fillRect(view.margin, view.y(y), view.width, step);
    context.globalAlpha = 1;
    context.strokeStyle = colour("ink");
    context.lineWidth = 2;
    const side = Math.max(step, 6), shift = (side - step) / 2;
    context.strokeRect(view.x(x) - shift, view.y(y) - shift, side, side);
  }

  drawNames(context, view, step) {
    const every = Math.max(1, Math.ceil(LEGIBLE / step));
    context.font = `${Math.min(12, Math.max(9, step * 0.8))}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (let place = 0; place < this.size; place += every) {
      this.drawName(context, view, place, step, false, false);
      this.drawName(context, view, place, step, true, false);
    }
    if (!this.chosen) return;
    this.drawName(context, view, this.chosen[1], step, false, true);
    this.drawName(context, view, this.chosen[0], step, true, true);
  }

  drawName(context, view, place, step, above, strong) {
    const at = (above ? view.x(place / this.size) : view.y(place / this.size)) + step / 2;
    if (at < view.margin || at > (above ? view.width : view.height)) return;
    context.save();
    context.translate(above ? at : view.margin - 6, above ? view.margin - 6 : at);
    if (above) context.rotate(-Math.PI / 2);
    const text = shortened(context, nameOf(this.order[place]), view.margin - 12);
    context.textAlign = above ? "left" : "right";
    if (strong) {
      const wide = context.measureText(text).width + 6;
      context.fillStyle = colour("paper");
      context.fillRect(above ? -3 : 3 - wide, -8, wide, 16);
    }
    context.fillStyle = colour(strong ? "ink" : "soft");
    context.fillText(text, 0, 0);
    context.restore();
  }

  point(u, v) {
    if (u === null) return;
    const [x, y] = [Math.floor(u * this.size), Math.floor(v * this.size)];
    if (u >= this.view.left && v >= this.view.top && x < this.size && y < this.size) this.choose(x, y);
  }

  choose(x, y) {
    if (this.chosen?.[0] === x && this.chosen[1] === y) return;
    this.chosen = [x, y];
    this.view.draw();
    this.say(this.at.get(y * this.size + x) ?? { label: this.order[y], predicted: this.order[x], count: 0 });
  }

  say(cell) {
    if (cell === null) {
      this.readout.textContent = "Point at a cell, or use the arrow keys; N goes from mistake to mistake. Click, then turn the wheel to zoom; drag to move.";
      return;
    }
    const { label, predicted, count: number } = cell, total = this.total.get(label) ?? 0;
    const share = total ? ` (${percent(number / total, 0)})` : "";
    this.readout.replaceChildren(el("strong", {}, nameOf(label)), label === predicted ? " named right: " : " taken for ",
      label === predicted ? "" : el("strong", {}, nameOf(predicted)), label === predicted ? "" : ": ", `${count(number)} of ${pictures(total)}${share}`);
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) {
      const [x, y] = this.chosen ?? [0, 0], [right, down] = moves[event.key];
      this.visit(Math.min(Math.max(x + right, 0), this.size - 1), Math.min(Math.max(y + down, 0), this.size - 1));
      return true;
    }
    const step = { n: 1, p: -1 }[event.key.toLowerCase()];
    if (!step || !this.mistakes.length) return false;
    this.jump = (this.jump + step + this.mistakes.length) % this.mistakes.length;
    this.visit(this.mistakes[this.jump].x, this.mistakes[this.jump].y);
    return true;
  }

  visit(x, y) {
    this.choose(x, y);
    this.view.reveal((x + 0.5) / this.size, (y + 0.5) / this.size);
  }
}

/** The text, cut so that it is no wider than so many pixels. */
function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  while (text.length > 1 && context.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}

/** The commonest pairs, each with pictures of both species. */
function pairCards(pairs, source) {
  return el("ol", { class: "pairs" }, pairs.filter(({ sides }) => sides.some(({ shown }) => shown.length)).map(({ sides }) => {
    const places = sides.flatMap(({ shown }) => shown);
    return el("li", {}, sides.map(({ label, mistaken, pictures: number, shown }, side) => el("div", { class: "side" },
      el("h4", {}, nameOf(label)),
      el("p", { class: "soft" }, mistaken ? `${mistaken} of ${number} taken for ${nameOf(sides[1 - side].label)}` : `none of ${number} taken for ${nameOf(sides[1 - side].label)}`),
      el("div", { class: "strip" }, shown.map((place) => thumbnail(places, places.indexOf(place), source))))));
  }));
}

function pairTable(pairs) {
  return plainTable("Most confused pairs", ["Species", "Taken for each other", "One way", "Other way"], pairs.map(({ sides: [a, b] }) => [
    `${nameOf(a.label)} – ${nameOf(b.label)}`, count(a.mistaken + b.mistaken), `${a.mistaken} of ${a.pictures}`, `${b.mistaken} of ${b.pictures}`]));
}

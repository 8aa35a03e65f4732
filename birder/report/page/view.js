// A canvas that can be moved over a square of 1 x 1, with mouse, fingers and keys.

const CLOSEST = 64;

class View {
  /**
   * @param label   what is drawn, in words
   * @param actions draw(context, view), point(u, v) or point(null), key(event) -> whether it was used
   * @param margin  pixels at the left and the top that do not move, from the width of the canvas
   */
  constructor(label, actions, { margin = () => 0, ratio = 1 } = {}) {
    Object.assign(this, { actions, marginOf: margin, ratio, scale: 1, left: 0, top: 0, pointers: new Map() });
    this.canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": label, on: {
      pointerdown: (event) => this.press(event), pointermove: (event) => this.move(event),
      pointerup: (event) => this.release(event), pointercancel: (event) => this.release(event),
      pointerleave: () => actions.point(null), keydown: (event) => this.key(event), dblclick: (event) => this.zoomEvent(event, 2),
    } });
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element = el("div", { class: "view" }, this.canvas);
    this.buttons = el("div", { class: "zoom" },
      this.button("+", "Closer", () => this.zoom(1.6)), this.button("−", "Further", () => this.zoom(1 / 1.6)),
      this.button("⤢", "Show all", () => this.reset()));
    new ResizeObserver(() => this.fit()).observe(this.element);
    View.all.add(this);
  }

  button(sign, title, click) {
    return el("button", { type: "button", title, "aria-label": title, on: { click } }, sign);
  }

  fit() {
    const width = this.element.clientWidth;
    if (!width) return;
    const dots = window.devicePixelRatio || 1;
    this.width = width;
    this.margin = this.marginOf(width);
    this.height = Math.round((width - this.margin) * this.ratio) + this.margin;
    this.side = width - this.margin; // pixels of the whole, unscaled
    Object.assign(this.canvas, { width: width * dots, height: this.height * dots });
    this.canvas.style.height = `${this.height}px`;
    this.draw();
  }

  draw() {
    if (!this.width) return;
    const context = this.canvas.getContext("2d");
    const dots = window.devicePixelRatio || 1;
    context.setTransform(dots, 0, 0, dots, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.actions.draw(context, this);
  }

  x(u) { return this.margin + (u - this.left) * this.side * this.scale; }
  y(v) { return this.margin + (v - this.top) * this.side * this.scale; }
  u(x) { return (x - this.margin) / (this.side * this.scale) + this.left; }
  v(y) { return (y - this.margin) / (this.side * this.scale) + this.top; }

  place(left, top) {
    const room = 1 - 1 / this.scale, below = this.ratio - this.ratio / this.scale;
    this.left = Math.min(Math.max(left, 0), room);
    this.top = Math.min(Math.max(top, 0), below);
    this.canvas.classList.toggle("closer", this.scale > 1);
    this.draw();
  }

  /** Zoom around a place that stays where it is on the screen. */
  zoom(factor, u = this.left + 0.5 / this.scale, v = this.top + 0.5 * this.ratio / this.scale) {
    const scale = Math.min(Math.max(this.scale * factor, 1), CLOSEST);
    const change = this.scale / scale;
    this.scale = scale;
    this.place(u - (u - this.left) * change, v - (v - this.top) * change);
  }

  reset() {
    this.scale = 1;
    this.place(0, 0);
  }

  /** Move so that a place is in sight. */
  reveal(u, v) {
    const width = 1 / this.scale, height = this.ratio / this.scale, edge = 0.08;
    const shift = (at, from, size) => Math.min(Math.max(from, at - (1 - edge) * size), at - edge * size);
    this.place(shift(u, this.left, width), shift(v, this.top, height));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [this.u(event.clientX - box.left), this.v(event.clientY - box.top)];
  }

  zoomEvent(event, factor) {
    this.zoom(factor, ...this.at(event));
  }

  /** The wheel belongs to the page until the canvas has been chosen. */
  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    this.zoomEvent(event, Math.exp(-event.deltaY / 300));
  }

  press(event) {
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.canvas.setPointerCapture(event.pointerId);
    this.spread = this.distance();
    this.actions.point(...this.at(event)); // a finger that only taps does not move
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (before) {
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.pointers.size === 2) {
        const spread = this.distance();
        this.zoomEvent(event, spread / this.spread);
        this.spread = spread;
        return;
      }
      const size = this.side * this.scale;
      if (this.scale > 1) this.place(this.left - (event.clientX - before[0]) / size, this.top - (event.clientY - before[1]) / size);
    }
    this.actions.point(...this.at(event));
  }

  release(event) {
    this.pointers.delete(event.pointerId);
  }

  distance() {
    const [a, b] = [...this.pointers.values()];
    return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) || 1 : 1;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.actions.key(event)) event.preventDefault();
    else if (event.key === "+" || event.key === "=") this.zoom(1.6, ...this.centre());
    else if (event.key === "-") this.zoom(1 / 1.6, ...this.centre());
    else if (event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  centre() {
    return this.actions.centre?.() ?? [];
  }
}
View.all = new Set();

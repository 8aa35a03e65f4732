// A picture in full, and over it what the network looked at.

import { button, chooser, el, fill, keyButton, written } from "./dom.js";
import { send } from "./queue.js";
import { nameOf } from "./species.js";
import { showable } from "./thumbnails.js";

const LARGEST = 640; // pixels of the canvas

let heatWanted = false; // stays as it was chosen, from picture to picture

/** {element, toggle: show or hide what it looked at, release: when it is no longer seen} */
export function framed(picture) {
  const frame = new Frame(picture);
  return { element: frame.element, toggle: () => frame.toggle(), release: () => frame.release() };
}

class Frame {
  constructor(picture) {
    this.picture = picture;
    this.stopper = new AbortController();
    this.urls = [];
    this.photo = el("div", { class: "photo" });
    this.note = el("p", { class: "note", role: "status" });
    this.explained = Boolean(picture.row?.answers.length);
    this.label = picture.best?.label;
    this.tools = el("div", { class: "tools" });
    this.element = el("figure", { class: "frame" }, this.photo, this.tools, this.note);
    if (picture.row?.width) this.shape(picture.row.width, picture.row.height);
    this.shown = showable(picture);
    if (this.shown) this.load();
    else this.placeholder();
    this.drawTools();
    if (heatWanted && this.explained) this.explain();
  }

  shape(width, height) {
    this.photo.style.setProperty("--width", width);
    this.photo.style.setProperty("--height", height);
  }

  load() {
    const url = this.keep(this.picture.file);
    const image = el("img", { alt: `The picture ${this.picture.name}`, src: url, on: {
      load: () => this.shape(image.naturalWidth, image.naturalHeight),
      error: () => { this.shown = false; this.picture.preview = false; this.placeholder(); this.drawTools(); },
    } });
    fill(this.photo, image);
  }

  keep(blob) {
    this.urls.push(URL.createObjectURL(blob));
    return this.urls.at(-1);
  }

  placeholder() {
    const kind = this.picture.name.match(/\.(\w{1,5})$/)?.[1]?.toUpperCase();
    const why = !this.picture.row ? "No preview yet" : this.explained ? `Your browser does not show ${kind ? `${kind} pictures` : "this picture"}.` : "There is nothing to show.";
    fill(this.photo, el("div", { class: "nothing" }, kind && written("span", kind, { class: "kind" }), el("span", {}, why)));
  }

  drawTools() {
    const title = this.shown ? "What it looked at" : "Have the server show it";
    const answers = this.picture.row?.answers ?? [];
    fill(this.tools, this.explained && keyButton(title, "x", () => this.toggle(), { "aria-pressed": heatWanted }),
      this.explained && heatWanted && answers.length > 1 && chooser("for", answers.map(({ label }) => [label, nameOf(label)]), this.label, (label) => {
        this.label = label;
        this.explain();
      }));
  }

  toggle() {
    if (!this.explained) return;
    const inside = this.tools.contains(document.activeElement);
    heatWanted = !heatWanted;
    this.drawTools();
    if (inside) this.tools.querySelector("button").focus();
    if (heatWanted) this.explain();
    else this.bare();
  }

  bare() {
    this.note.textContent = "";
    if (this.shown) this.photo.querySelector("canvas")?.remove();
    else this.placeholder();
  }

  async explain() {
    const { label } = this;
    this.note.textContent = "Asking the network …";
    this.photo.classList.add("busy");
    try {
      const how = { query: { model: this.picture.model, label }, signal: this.stopper.signal };
      if (this.shown) {
        const { heat } = await (await send("v1/explain", this.picture, how)).json();
        if (this.isCurrent(label)) this.lay(heat);
      } else {
        const blob = await (await send("v1/explain", this.picture, { ...how, accept: "image/png" })).blob();
        if (this.isCurrent(label)) fill(this.photo, el("img", { alt: `The picture ${this.picture.name}, with what the network looked at`, src: this.keep(blob) }));
      }
      if (this.isCurrent(label)) fill(this.note, this.shown ? "Bright is what spoke for " : "Yellow is what spoke for ", written("bdi", nameOf(label)), ".");
    } catch (error) {
      if (error.name === "AbortError" || !this.isCurrent(label)) return;
      fill(this.note, written("span", error.reason || error.message), " ", button("Try again", () => this.explain(), { class: "quiet" }));
    } finally {
      this.photo.classList.remove("busy");
    }
  }

  isCurrent(label) {
    return heatWanted && label === this.label && !this.stopper.signal.aborted;
  }

  /** Darken the picture where the network did not look. */
  lay({ height, width, values }) {
    const small = el("canvas", { width, height });
    const pixels = new ImageData(width, height);
    Uint8Array.from(atob(values), (letter) => letter.charCodeAt(0)).forEach((value, place) => {
      pixels.data.set([8, 12, 24, Math.round(0.86 * (255 - value))], 4 * place);
    });
    small.getContext("2d").putImageData(pixels, 0, 0);
    const ratio = (Number(this.photo.style.getPropertyValue("--width")) || width) / (Number(this.photo.style.getPropertyValue("--height")) || height);
    const canvas = el("canvas", { class: "heat", "aria-hidden": "true",
      width: Math.round(LARGEST * Math.min(1, ratio)) || 1, height: Math.round(LARGEST / Math.max(1, ratio)) || 1 });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    this.photo.querySelector("canvas")?.remove();
    this.photo.append(canvas);
  }

  release() {
    this.stopper.abort();
    for (const url of this.urls) URL.revokeObjectURL(url);
    fill(this.photo);
  }
}

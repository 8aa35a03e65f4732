// The pictures of this page and what is known of each. They are kept as files, which the browser reads when needed.

/** All pictures, in the order they came. Events: `added`, `cleared`, `changed` (detail: the picture). */
export const pictures = Object.assign(new EventTarget(), { all: [] });

let number = 0;

class Picture {
  constructor(file, path) {
    this.id = ++number;
    this.file = file;
    this.path = path;
    this.state = "waiting"; // then sending, then done or failed
    this.row = null; // the server's answer; while it is asked again, the last one
    this.asked = null; // what was asked: model, checklist
    this.model = ""; // the name of the one that gave the row
    this.failure = ""; // why there is no answer, in words
    this.preview = undefined; // whether the browser can show it
    this.review = ""; // accepted, corrected or skipped
    this.reviewedLabel = "";
  }

  get name() {
    return this.path.slice(this.path.lastIndexOf("/") + 1);
  }

  get best() {
    return this.row?.answers[0] ?? null;
  }
}

/** @param files [{file, path}] */
export function add(files) {
  const added = files.map(({ file, path }) => new Picture(file, path));
  for (const picture of added) pictures.all.push(picture);
  pictures.dispatchEvent(new CustomEvent("added", { detail: added }));
}

export function change(picture, what = {}) {
  Object.assign(picture, what);
  pictures.dispatchEvent(new CustomEvent("changed", { detail: picture }));
}

export function clear() {
  pictures.all = [];
  pictures.dispatchEvent(new CustomEvent("cleared"));
}

/** What is shown: of one kind (null: of all), and with these words in file or species. */
export const sight = Object.assign(new EventTarget(), { kind: null, words: "" });

export function look(what) {
  Object.assign(sight, what);
  sight.dispatchEvent(new CustomEvent("changed"));
}

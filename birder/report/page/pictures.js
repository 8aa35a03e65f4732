// Pictures: small ones in galleries, and one at a time in the dialog with all that was said of it.

const GALLERIES = {
  mistakes: ["Surest mistakes", "Wrong, and sure of it. The worst kind, and often the most telling: look for wrong labels, two birds in one picture, a bird that is hardly there."],
  certain: ["Most certain", "The answers with the highest probability."],
  uncertain: ["Least certain", "The answers with the lowest probability: what a person should look at first."],
  suspects: ["Suspected labels", "Pictures whose label is probably wrong, found by confident learning: the model is surer of another species than it usually is of that species, and less sure of the label."],
};

/** A picture as a button: what it shows, what it was taken for, and how surely. */
function thumbnail(places, index, source) {
  const { label, answers, url } = report.pictures[places[index]];
  const [best, probability] = answers[source][0] ?? [NOBODY, null];
  const right = best === label;
  const verdict = best === NOBODY ? "no answer" : `${right ? "named right" : `taken for ${nameOf(best)}`}, ${percent(probability, 0)}`;
  return el("button", { type: "button", class: right ? "thumb" : "thumb wrong", "aria-label": `${nameOf(label)}, ${verdict}`,
    on: { click: () => showPicture(places, index, source) } },
  el("span", { class: "frame" }, url ? el("img", { src: url, alt: "", decoding: "async" }) : el("span", { class: "soft" }, "cannot be read")),
  el("span", { class: "name" }, nameOf(label)),
  el("span", { class: "verdict" }, right ? `✓ ${percent(probability, 0)}` : best === NOBODY ? "no answer" : [`✗ ${nameOf(best)} `, percent(probability, 0)]));
}

function gallery(places, source) {
  return places.length
    ? el("ul", { class: "gallery" }, places.map((_, index) => el("li", {}, thumbnail(places, index, source))))
    : el("p", { class: "soft" }, "There are none.");
}

/** Galleries behind tabs; on paper they stand one after the other. */
function galleryTabs(galleries, source) {
  const names = Object.keys(GALLERIES);
  const tabs = names.map((name, index) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, on: {
    click: () => choose(index),
    keydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose((index + step + names.length) % names.length).focus();
    },
  } }, GALLERIES[name][0], el("span", { class: "soft" }, ` ${galleries[name].length}`)));
  const panels = names.map((name) => el("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` },
    el("h3", { class: "printed" }, GALLERIES[name][0]), el("p", { class: "soft lead" }, GALLERIES[name][1]), gallery(galleries[name], source)));
  const choose = (chosen) => {
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", index === chosen);
      tab.tabIndex = index === chosen ? 0 : -1;
      panels[index].hidden = index !== chosen;
    });
    return tabs[chosen];
  };
  choose(0);
  return [el("div", { role: "tablist", "aria-label": "Galleries", class: "tabs" }, tabs), panels];
}

let heatShown = true; // stays as it was chosen, from picture to picture

/** The dialog: one of these pictures, with the way to its neighbours. */
function showPicture(places, index, source) {
  const dialog = document.getElementById("dialog");
  const step = (by) => showPicture(places, (index + by + places.length) % places.length, source);
  const { label, answers, path, url } = report.pictures[places[index]];
  const best = answers[source][0]?.[0] ?? NOBODY;
  const heat = report.sources[source].looked_at?.heat[places[index]];
  const canvas = el("canvas", { role: "img", "aria-label": `A picture of ${nameOf(label)}` });
  const draw = () => drawPicture(canvas, url, heatShown ? heat : "", report.sources[source].looked_at?.grid);
  draw();
  const close = el("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => dialog.close() } }, "×");
  dialog.replaceChildren(close,
    el("div", { class: "picture" }, canvas, heat && el("label", { class: "switch" },
      el("input", { type: "checkbox", checked: heatShown, on: { change: (event) => { heatShown = event.target.checked; draw(); } } }),
      el("span", {}, "Show what it looked at"))),
    el("div", { class: "said" },
      el("p", { class: "eyebrow" }, "The label says"),
      el("h2", { id: "dialog-title" }, nameOf(label)),
      familyOf(label) && el("p", { class: "soft" }, familyOf(label)),
      el("p", { class: best === label ? "verdict good" : "verdict bad" }, best === label ? "✓ Named right" : best === NOBODY ? "No answer" : `✗ Taken for ${nameOf(best)}`),
      answers.map((ranked, number) => ranked.length > 0 && [
        report.sources.length > 1 && el("h3", {}, report.sources[number].name),
        bars(ranked.map(([species, value]) => ({ title: species === label ? el("strong", {}, nameOf(species)) : nameOf(species), value, text: percent(value) }))),
      ]).flat(),
      el("p", { class: "path" }, path)),
    el("div", { class: "steps" },
      el("button", { type: "button", on: { click: () => step(-1) } }, "← Previous"),
      el("span", { class: "soft" }, `${index + 1} of ${places.length}`),
      el("button", { type: "button", on: { click: () => step(1) } }, "Next →")));
  dialog.onkeydown = (event) => {
    if (event.target.type === "checkbox" && event.key === " ") return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
  };
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  if (!dialog.open) dialog.showModal();
  close.focus();
}

/** The picture, darkened where the network did not look. */
function drawPicture(canvas, url, heat, grid) {
  const image = new Image();
  image.onload = () => {
    const enlarged = Math.min(3, 560 / Math.max(image.naturalWidth, image.naturalHeight));
    canvas.width = Math.round(image.naturalWidth * enlarged);
    canvas.height = Math.round(image.naturalHeight * enlarged);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.dataset.heat = heat ? "shown" : "";
    if (heat) context.drawImage(shade(heat, grid), 0, 0, canvas.width, canvas.height);
  };
  if (url) image.src = url;
}

function shade(heat, grid) {
  const values = Uint8Array.from(atob(heat), (letter) => letter.charCodeAt(0));
  const small = el("canvas", { width: grid, height: grid });
  const pixels = new ImageData(grid, grid);
  values.forEach((value, place) => {
    pixels.data.set([8, 12, 24, Math.round(0.86 * (255 - value))], 4 * place);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

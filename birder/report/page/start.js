// The page as a whole: head, navigation, which source is shown, light or dark, and paper.

const report = JSON.parse(document.getElementById("data").textContent);
let shown = 0; // number of the source

function head() {
  const { title, made, data, sources } = report;
  const date = new Date(made);
  document.getElementById("head").append(
    el("p", { class: "eyebrow" }, "birder report"), el("h1", {}, title),
    el("p", { class: "soft" }, [sources.map(({ name }) => name).join(", "), data.place, `${pictures(data.pictures)} of ${count(data.species)} species`,
      el("time", { datetime: made }, date.toLocaleDateString("en", { dateStyle: "long" }))].filter(Boolean).flatMap((part, index) => (index ? [" · ", part] : [part]))));
}

function contents() {
  const dark = document.documentElement.dataset.theme === "dark";
  const theme = el("button", { type: "button", class: "theme", "aria-pressed": dark, on: { click: () => {
    chosenTheme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    applyTheme();
  } } }, "Dark");
  const sources = report.sources.length > 1 && choice("Showing", report.sources.map(({ name }, number) => [String(number), name]), "0", (number) => {
    shown = Number(number);
    draw();
  });
  const links = SECTIONS.filter(([id]) => document.getElementById(id)).map(([id, , short]) => el("li", {}, el("a", { href: `#${id}` }, short)));
  filled(document.getElementById("contents"), {}, [el("div", { class: "row" }, el("ul", {}, links), theme), sources]);
}

/** All sections, of the source that is chosen; where the reader is stays where it is. */
function draw() {
  const place = window.scrollY;
  Table.all.clear();
  View.all.clear();
  const source = report.sources[shown];
  document.getElementById("content").replaceChildren(...SECTIONS.map(([id, title, , build]) => {
    const content = build(source, shown);
    if (!content) return null;
    const whose = report.sources.length > 1 && id !== "compared" ? el("span", { class: "whose" }, source.name) : null;
    return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title, whose), ...content.flat(9));
  }).filter(Boolean));
  for (const table of Table.all) table.draw(true);
  window.scrollTo(0, place);
}

/** The section that is being read is marked in the navigation. */
function follow() {
  const middle = window.innerHeight / 3;
  let here = SECTIONS[0][0];
  for (const section of document.querySelectorAll("main > section")) if (section.getBoundingClientRect().top < middle) here = section.id;
  for (const link of document.querySelectorAll("#contents a")) {
    if (link.hash === `#${here}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null, onPaper = false;

function applyTheme() {
  const theme = onPaper ? "light" : chosenTheme ?? (prefersDark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  document.querySelector(".theme")?.setAttribute("aria-pressed", theme === "dark");
  for (const view of View.all) view.draw();
}

/** On paper all is open, all rows are there, and ink is dark. */
function print(begins) {
  if (begins === onPaper) return;
  onPaper = begins;
  for (const details of document.querySelectorAll("details")) details.open = begins;
  for (const table of Table.all) table.print(begins);
  applyTheme();
}

prefersDark.addEventListener("change", applyTheme);
window.addEventListener("beforeprint", () => print(true));
window.addEventListener("afterprint", () => print(false));
window.matchMedia("print").addEventListener("change", (event) => print(event.matches));
window.addEventListener("scroll", follow, { passive: true });
applyTheme();
head();
draw();
contents();
new ResizeObserver(([nav]) => { // a heading that is jumped to is not below the navigation
  document.documentElement.style.scrollPaddingTop = `${nav.target.offsetHeight + 8}px`;
}).observe(document.getElementById("contents"));
follow();

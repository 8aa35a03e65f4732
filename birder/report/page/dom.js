// Elements, and nothing else: data reaches the page as text nodes and attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`on`) and children, which are elements, texts or nothing. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A row of choices of which one is taken: radio buttons, so that keys and screen readers know them. */
function choice(legend, options, chosen, change) {
  const name = `choice-${(choice.count = (choice.count ?? 0) + 1)}`;
  return el("fieldset", { class: "choice" }, el("legend", {}, legend), options.map(([value, title]) =>
    el("label", {},
      el("input", { type: "radio", name, value, checked: value === chosen, on: { change: () => change(value) } }),
      el("span", {}, title))));
}

/** What a style sheet calls `--name`, for drawing on a canvas. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A line that screen readers speak when it changes. */
function spoken(className = "readout") {
  return el("p", { class: className, "aria-live": "polite" });
}

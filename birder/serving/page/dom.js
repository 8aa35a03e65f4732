// Elements: what comes from files, models and servers reaches the page as text nodes and attributes, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (`on`) and children, which are elements, texts or nothing. */
export function el(tag, { on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...present(children));
  return element;
}

/** Put children in the place of those that an element has. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

const present = (children) => children.flat(9).filter((child) => child !== null && child !== undefined && child !== false);

export function button(title, click, attributes = {}) {
  return el("button", { type: "button", ...attributes, on: { click } }, title);
}

/** A button that is a key as well; both are shown. */
export function keyButton(title, key, click, attributes = {}) {
  return button([title, el("kbd", { "aria-hidden": "true" }, key)], click, { "aria-keyshortcuts": key, ...attributes });
}

let choosers = 0;

/** A field to choose one of [[value, text]]; what people wrote may run in any direction. */
export function chooser(title, options, chosen, change) {
  const id = `chooser-${++choosers}`;
  return el("span", { class: "chooser" }, el("label", { for: id }, title),
    el("select", { id, on: { change: ({ target }) => change(target.value) } },
      options.map(([value, text]) => el("option", { value, selected: value === chosen, dir: "auto" }, text))));
}

/** Text that somebody else wrote, in whatever direction it runs. */
export function written(tag, text, attributes = {}) {
  return el(tag, { dir: "auto", ...attributes }, text);
}

/** Tell screen readers; the last message counts. */
export function say(text) {
  byId("said").textContent = text;
}

/** Open a dialog; it closes by Escape, by its cross, and by a click beside it, and focus returns to where it was. */
export function open(dialog, title, ...content) {
  const close = button("×", () => dialog.close(), { class: "close", "aria-label": "Close" });
  fill(dialog, el("h2", { id: `${dialog.id}-title`, tabindex: -1 }, title), content, close);
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  if (!dialog.open) dialog.showModal();
}

/** Put a text into an element, if it is another: what is written anew is read aloud anew. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A function that, however often it is called, does its work once, a moment later. */
export function soon(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; work(); }, 60); // no frame, which never comes while the page is out of sight
  };
}

/** What this browser remembers under a name; nothing where it may not remember. */
export const memory = {
  get(name) { try { return localStorage.getItem(`birder.${name}`); } catch { return null; } },
  set(name, text) { try { localStorage.setItem(`birder.${name}`, text); } catch { /* it is a convenience */ } },
};

// Pictures as they are chosen, dropped, pasted or taken: files, and folders with all that is in them.

import { byId } from "./dom.js";

// What is taken for a picture when a folder is searched; a single file is taken whatever it is called.
const SUFFIXES = new Set("apng avif bmp gif heic heif hif j2k jfif jp2 jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp".split(" "));

/** @param taken called with ([{file, path}], number of other files that were left out) */
export function listen(taken) {
  for (const id of ["files", "folder", "camera"]) {
    const input = byId(id);
    input.addEventListener("change", () => {
      const files = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
      input.value = ""; // so that the same can be chosen again
      deliver(files, taken);
    });
    for (const opener of document.querySelectorAll(`[data-opens="${id}"]`)) opener.addEventListener("click", () => input.click());
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].map((file) => ({ file, path: file.name || "pasted picture" }));
    if (!files.length) return; // text, into a field
    event.preventDefault();
    deliver(files, taken);
  });
  listenForDrops(taken);
}

function listenForDrops(taken) {
  let inside = 0; // elements that the pointer has entered and not left
  const carries = (event) => [...event.dataTransfer.types].includes("Files");
  const show = () => byId("drop").classList.toggle("shown", inside > 0);
  document.addEventListener("dragenter", (event) => { if (carries(event)) { inside++; show(); } });
  document.addEventListener("dragleave", (event) => { if (carries(event)) { inside = Math.max(0, inside - 1); show(); } });
  document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener("drop", async (event) => {
    inside = 0;
    show();
    if (!carries(event)) return;
    event.preventDefault();
    deliver(await dropped(event.dataTransfer), taken);
  });
}

function deliver(files, taken) {
  const kept = files.filter(({ path, loose }) => !path.includes("/") || loose || SUFFIXES.has(path.slice(path.lastIndexOf(".") + 1).toLowerCase()));
  taken(kept, files.length - kept.length);
}

async function dropped(transfer) {
  const loose = (file) => ({ file, path: file.name, loose: true });
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  if (!items.length) return [...transfer.files].map(loose);
  // What was dropped is out of reach after the first wait, so all is taken hold of before.
  const held = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = [];
  for (const { entry, file } of held) {
    if (entry?.isDirectory) await search(entry, found);
    else if (file) found.push(loose(file));
  }
  return found;
}

/** All files below a folder, in the order of their names. */
async function search(folder, found) {
  const reader = folder.createReader();
  const entries = [];
  for (let some; (some = await read(reader)).length; ) entries.push(...some); // it gives a hundred at a time
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.isDirectory) await search(entry, found);
    else {
      const file = await new Promise((resolve) => { entry.file(resolve, () => resolve(null)); });
      if (file) found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    }
  }
}

const read = (reader) => new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });

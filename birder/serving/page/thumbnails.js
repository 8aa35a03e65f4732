// Small upright pictures for lists. They are made when they come into sight and let go when many newer ones have been
// seen, so that two thousand photographs need no more memory than two hundred.

const SIDE = 480; // pixels, the longer one
const KEPT = 240;
const AT_ONCE = 2; // a photograph of 24 megapixels takes 100 MB while it is decoded
const MOST_PIXELS = 2e8;
const PHOTOGRAPH = /\.(jpe?g|jfif|webp|heic|heif)$/i;

const urls = new Map(); // picture -> object URL, least recently seen first
const wanted = new Map(); // picture -> {promise, resolve}
let busy = 0;

/** Whether the browser should try: it is not told how many pixels a file has, so but for photographs the server says it. */
export function showable({ row, preview, name, file }) {
  if (preview === false) return false;
  if (!row) return PHOTOGRAPH.test(name) || file.type === "image/jpeg";
  return row.status !== "error" && row.width * row.height <= MOST_PIXELS;
}

/** The address of a small picture, or null if the browser cannot show it. */
export function thumbnail(picture) {
  const url = urls.get(picture);
  if (url) {
    urls.delete(picture);
    urls.set(picture, url);
    return Promise.resolve(url);
  }
  if (!showable(picture)) return Promise.resolve(null);
  if (!wanted.has(picture)) {
    let resolve;
    const promise = new Promise((settle) => { resolve = settle; });
    wanted.set(picture, { promise, resolve, begun: false });
    makeNext();
  }
  return wanted.get(picture).promise;
}

/** It went out of sight before it was made. */
export function unwanted(picture) {
  const request = wanted.get(picture);
  if (!request || request.begun) return;
  wanted.delete(picture);
  request.resolve(null);
}

export function forget() {
  for (const url of urls.values()) URL.revokeObjectURL(url);
  urls.clear();
}

async function makeNext() {
  const [picture, request] = [...wanted].find(([, { begun }]) => !begun) ?? [];
  if (!picture || busy >= AT_ONCE) return;
  busy++;
  request.begun = true;
  let url = null;
  try {
    url = URL.createObjectURL(await small(picture.file));
    urls.set(picture, url);
    drop();
  } catch {
    picture.preview = false;
  }
  busy--;
  wanted.delete(picture);
  request.resolve(url);
  makeNext();
}

function drop() {
  for (const [picture, url] of urls) {
    if (urls.size <= KEPT) return;
    URL.revokeObjectURL(url);
    urls.delete(picture);
  }
}

async function small(file) {
  const bitmap = await createImageBitmap(file); // upright: it follows the camera's tag
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/webp", 0.85);
  });
}

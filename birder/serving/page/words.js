// Numbers and answers as they are read.

const NARROW = "\u202f"; // a space that does not break

export const count = (number) => number.toLocaleString("en");
export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** 0.551 -> 55 %; what is not quite all, or nothing, does not say that it is. */
export function percent(share) {
  const whole = Math.round(100 * share);
  if (whole >= 100 && share < 1) return `>99${NARROW}%`;
  if (whole <= 0 && share > 0) return `<1${NARROW}%`;
  return `${whole}${NARROW}%`;
}

/** 7970000 -> 8.0 MB. */
export const bytes = (number) => (number >= 1e6 ? `${(number / 1e6).toFixed(1)} MB` : `${Math.ceil(number / 1e3)} kB`);

/** 3870000 -> 3.9 million. */
export const large = (number) => (number >= 1e6 ? `${(number / 1e6).toPrecision(2)} million` : count(number));

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** 2026-05-17T06:12:44 -> 17 May 2026, 06:12: the camera's own time, wherever the reader is. */
export function moment(taken) {
  const date = new Date(`${taken}Z`);
  return Number.isNaN(date.getTime()) ? taken : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
}

const REASONS = {
  empty: "The file is empty.",
  not_an_image: "This is not a picture, or of a kind that nobody here can read.",
  truncated: "The file ends before the picture does: it was cut off when it was copied.",
  damaged: "The picture is damaged.",
  no_pixels: "The picture has no pixels.",
  too_large: "The picture has more pixels than are read.",
  needs_plugin: "The server needs another package for pictures of this kind.",
  memory: "The server had not enough memory for this picture.",
  crashed: "The picture made its reader crash.",
  timeout: "It took too long to read the picture.",
  not_finite: "The network’s answer is not a number.",
};

/** Why there is no answer, in words; what the server said behind it. */
export const reasonOf = (row) => REASONS[row.code] ?? row.reason;

/** What stands behind the code of a reason. */
export const detailOf = (row) => row.reason.slice(row.code.length).replace(/^:\s*/, "");

const REFUSALS = {
  "too-large": "The file is larger than this server takes.",
  slow: "The picture did not arrive in time; the way to the server may be slow.",
};

/** Why the server refused a picture, in words. */
export const refusalOf = (error) => REFUSALS[error.code] ?? error.message;

/** The kinds of results, as they are counted and chosen. */
export const KINDS = {
  ok: "Named", unsure: "Unsure", not_in_list: "Not in my list", error: "Cannot be read", failed: "No answer", waiting: "Waiting",
};

export function kindOf(picture) {
  if (picture.state === "failed") return "failed";
  return picture.row ? picture.row.status : "waiting";
}

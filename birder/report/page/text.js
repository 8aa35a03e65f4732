// Numbers and names as they are read.

const NOBODY = -1;

const nameOf = (label) => (label === NOBODY ? "" : report.names[label]);
const familyOf = (label) => (report.families === null || label === NOBODY ? "" : report.families[label]);
const count = (number) => number.toLocaleString("en");
const known = (value) => value !== null && value !== undefined;

/** 0.5512 -> 55.1 %, with a space that does not break. */
function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)}\u202f%` : "–";
}

/** 3 of 10 pictures. */
function pictures(number) {
  return `${count(number)} picture${number === 1 ? "" : "s"}`;
}

/** 1234567 -> 1.2 million. */
function large(number) {
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return count(number);
}

/** 13694000 -> 13.1 MiB. */
function bytes(number) {
  return number >= 2 ** 20 ? `${(number / 2 ** 20).toFixed(1)} MiB` : `${Math.ceil(number / 1024)} KiB`;
}

/** Order of two cells: numbers by size, texts as a dictionary has them, what is unknown last in any direction. */
function compare(a, b, sign) {
  if (!known(a) || !known(b)) return known(a) ? -1 : known(b) ? 1 : 0;
  return sign * (typeof a === "string" ? compare.texts(a, b) : a - b);
}
compare.texts = new Intl.Collator("en", { numeric: true }).compare;

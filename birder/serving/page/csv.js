// The table as a file: the columns that `birder predict` writes, and behind them what a person decided.
//
// UTF-8, quoted as RFC 4180 has it. A cell is what it is: names of files and species are not altered for spreadsheets,
// which take what begins with = + - or @ for a formula; who opens a table with names of strangers imports it as text.

/** @param options top: answers in a row; open: whether there was a checklist; novelty: whether the model tells it */
export function csv(rows, { top, open, novelty }) {
  const ranks = Array.from({ length: top }, (_, rank) => rank + 1);
  const head = ["path", "status", "reason", ...ranks.flatMap((rank) => [`label_${rank}`, `score_${rank}`]),
    ...(open ? ranks.map((rank) => `open_score_${rank}`) : []), ...(novelty ? ["novelty"] : []), "taken", "review", "reviewed_label"];
  return [head, ...rows.map((picture) => cells(picture, { ranks, open, novelty }))].map(line).join("");
}

function cells({ path, row, review, reviewedLabel }, { ranks, open, novelty }) {
  const answers = ranks.map((rank) => row.answers[rank - 1]);
  return [path, row.status, row.reason, ...answers.flatMap((answer) => [answer?.label ?? "", number(answer?.score)]),
    ...(open ? answers.map((answer) => number(answer?.open_score)) : []), ...(novelty ? [number(row.novelty)] : []),
    row.taken, review, reviewedLabel];
}

const number = (value) => (value === null || value === undefined ? "" : value.toFixed(6));

const line = (texts) => `${texts.map(quoted).join(",")}\r\n`;

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** Give a text to the reader as a file. */
export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

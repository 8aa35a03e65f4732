// The sections, in the order of the page. Each takes a source (and its number) and gives elements, or nothing.

const FIGURES = {
  top1: ["Named right", "top-1: its first answer is right"],
  top3: ["In the first three", "top-3: the right species is among them"],
  top5: ["In the first five", "top-5"],
  macro_f1: ["Macro F1", "mean over species of finding them and naming nothing else so"],
  balanced_accuracy: ["Balanced accuracy", "as if there were equally many pictures of each species"],
  ece: ["Calibration error", "ECE: mean distance of confidence and accuracy; less is better"],
  brier: ["Brier score", "squared distance of confidence and truth, 0 to 1; less is better"],
};

const figure = (name, value) => (!known(value) ? "–" : name === "brier" ? value.toFixed(3) : percent(value));

function tiles({ summary }) {
  return el("dl", { class: "tiles" }, Object.entries(FIGURES).map(([name, [title, note]]) => {
    const [value, low, high] = summary.estimates[name] ?? [null, null, null];
    return el("div", { class: "tile", id: `figure-${name}` }, el("dt", {}, title),
      el("dd", {}, el("span", { class: "value" }, figure(name, value)),
        el("span", { class: "range" }, known(low) ? `${figure(name, low).replace("\u202f%", "")} to ${figure(name, high)}` : "interval unknown"),
        known(value) && intervalBar(value, low, high), el("span", { class: "note" }, note)));
  }));
}

function overview(source) {
  const { summary, calibration } = source, { promise } = calibration;
  const left = [[summary.unreadable, "could not be read"], [summary.missing, "are not in the table"], [summary.superfluous, "of the table have no label"]].filter(([number]) => number);
  return [el("p", { class: "plainly" }, summary.sentence, promise && ` Where it is surer than ${promise.threshold.toFixed(2)}, which it is for ${percent(promise.coverage, 0)} of the pictures, it is right in ${percent(1 - promise.error, 0)}.`),
    tiles(source),
    el("p", { class: "soft" }, `Of ${pictures(summary.pictures)}; ranges are 95\u202f% intervals by bootstrap.${left.map(([number, words]) => ` ${pictures(number)} ${words}.`).join("")}`)];
}

function compared() {
  const { sources, comparison } = report;
  const rows = Object.entries(FIGURES).map(([name, [title]]) => [title, ...sources.map(({ summary }) => {
    const [value, low, high] = summary.estimates[name] ?? [null, null, null];
    return [figure(name, value), known(low) && el("small", { class: "soft" }, ` ${figure(name, low).replace("\u202f%", "")}–${figure(name, high)}`)];
  })]);
  const several = comparison.pairs.length > 1 ? " Each p-value is that of one comparison by itself." : "";
  return [plainTable("The sources side by side", ["", ...sources.map(({ name }) => name)], rows),
    el("p", { class: "soft" }, `Differences are of the ${pictures(comparison.pictures)} that all have an answer to; p-values by McNemar's exact test.${several}`),
    comparison.pairs.map(pairSection)];
}

function pairSection(pair) {
  const [a, b] = [pair.first, pair.second].map((number) => report.sources[number].name);
  const points = (value) => (100 * value).toFixed(1).replace("-", "−");
  const sure = pair.p_value < 0.05 ? "More than chance would do" : "No more than chance may do";
  const better = pair.difference >= 0 ? [a, b] : [b, a];
  const words = pair.difference === 0 ? `${a} and ${b} name equally many right.`
    : `${better[0]} names ${points(Math.abs(pair.difference))} points more right than ${better[1]}.`;
  return el("section", { class: "pair" }, el("h3", {}, `${a} and ${b}`),
    el("p", { class: "plainly" }, words, " ", el("span", { class: "soft" }, `${sure}: 95\u202f% interval of ${a} less ${b} ${points(pair.low)} to ${points(pair.high)} points, p = ${pair.p_value < 0.001 ? pair.p_value.toExponential(0) : pair.p_value.toFixed(3)}.`)),
    plainTable(`Who is right, ${a} or ${b}`, ["Both", `Only ${a}`, `Only ${b}`, "Neither"], [[count(pair.both), count(pair.only_a), count(pair.only_b), count(pair.neither)]]),
    pair.species.length > 0 && [el("h4", {}, "Species that differ most"), el("p", { class: "soft" }, `Pictures more that ${a} (right) or ${b} (left) names right.`),
      bars(pair.species.map(({ label, difference, samples }) => ({ title: nameOf(label), note: `of ${samples}`, value: difference, text: difference > 0 ? `+${difference}` : `−${-difference}` })), { signed: true })],
    [[a, pair.shown_first, pair.first, b], [b, pair.shown_second, pair.second, a]].map(([winner, places, number, loser]) => [
      el("h4", {}, `Right with ${winner}, wrong with ${loser}`), gallery(places, number)]));
}

function species(source) {
  const { species: columns, families, costly } = source;
  const rows = columns.label.map((label, row) => ({ label, row }));
  const number = (title, key, cell, width) => ({ title, number: true, width, value: ({ row }) => columns[key][row], cell: cell && (({ row }) => cell(columns[key][row])) });
  const table = new Table("How each species fared", [
    { title: "Species", width: 14, value: ({ label }) => nameOf(label) },
    number("Pictures", "samples", count, 5.5),
    number("Found", "recall", shareCell, 8.3),
    number("Right when named", "precision", shareCell, 8.3),
    number("F1", "f1", percent, 5),
    number("Mistakes", "wrong", count, 5.5),
    { title: "Mostly taken for", width: 12.5, value: ({ row }) => nameOf(columns.taken[row]), cell: ({ row }) => (columns.taken[row] === NOBODY ? "" : [nameOf(columns.taken[row]), el("span", { class: "soft" }, ` ${columns.taken_count[row]}`)]) },
    ...(report.families ? [{ title: "Family", width: 8, value: ({ label }) => familyOf(label) }] : []),
  ], rows, { sort: [4, 1], words: ({ label }) => `${nameOf(label)} ${familyOf(label)}`, noun: "species" });
  return [el("p", { class: "soft lead" }, "Found: the part of its pictures that got its name (recall). Right when named: the part of the pictures with this name that deserve it (precision). F1 is the harmonic mean of both."),
    table.element, whereErrorsAre(columns, costly), families && familySection(families, costly)];
}

function whereErrorsAre(columns, { rows: costly }) {
  const total = columns.wrong.reduce((sum, number) => sum + number, 0);
  if (!total) return el("p", {}, "There is not one mistake.");
  const worst = columns.label.map((label, row) => ({ label, wrong: columns.wrong[row], samples: columns.samples[row] })).sort((a, b) => b.wrong - a.wrong).slice(0, 10).filter(({ wrong }) => wrong);
  const share = worst.reduce((sum, { wrong }) => sum + wrong, 0) / total;
  return el("div", { class: "two" },
    el("div", {}, el("h3", {}, "Where the mistakes are"), el("p", { class: "soft" }, `${worst.length} of ${count(columns.label.length)} species have ${percent(share, 0)} of all ${count(total)} mistakes.`),
      bars(worst.map(({ label, wrong, samples }) => ({ title: nameOf(label), note: `of ${samples}`, value: wrong, text: count(wrong) })))),
    el("div", {}, el("h3", {}, "Where they cost most"), el("p", { class: "soft" }, "When every species counts the same, however many pictures it has: the part of what balanced accuracy lacks."),
      bars(costly.map(({ name, predicted, cost }) => ({ title: [name, el("small", {}, ` taken for ${predicted}`)], value: cost, text: percent(cost) })))));
}

function familySection(families, { other_family: far }) {
  const rows = families.name.map((name, row) => ({ name, row }));
  const column = (title, key, cell, width) => ({ title, number: true, width, value: ({ row }) => families[key][row], cell: ({ row }) => cell(families[key][row]) });
  const table = new Table("How each family fared", [
    { title: "Family", width: 13, value: ({ name }) => name }, column("Species", "species", count, 6), column("Pictures", "samples", count, 6),
    column("Family found", "recall", shareCell, 9), column("Species found", "species_right", shareCell, 9), column("Right when named", "precision", shareCell, 9),
  ], rows, { sort: [4, 1], words: ({ name }) => name, noun: "families" });
  return [el("h3", {}, "Families"), el("p", { class: "soft lead" }, `Family found: taken for some species of the right family.${known(far) ? ` Of all mistakes, ${percent(1 - far, 0)} stay within the family.` : ""}`), table.element];
}

function confusions(source, number) {
  const matrix = new Matrix(source);
  return [el("p", { class: "soft lead" }, "A row is what pictures show, a column what they were taken for. What lies off the diagonal is a mistake."), matrix.element,
    source.pairs.length > 0 && [el("h3", {}, "Most confused pairs"), pairCards(source.pairs, number),
      el("details", {}, el("summary", {}, `${source.pairs.length} pairs as a table`), pairTable(source.pairs))]];
}

function trust(source) {
  const { calibration: { bins, coverage, promise, sets }, temperature, summary: { estimates } } = source;
  const mean = bins.reduce((sum, [, , number, confidence, accuracy]) => sum + (number ? number * (confidence - accuracy) : 0), 0);
  const fewer = source.species.label.length > 5; // species of which only the best are kept
  const tempered = source.kind === "results" ? "" : known(temperature) ? ` Its probabilities were calibrated, with a temperature of ${temperature.toFixed(2)}.` : " It has not been calibrated: birder calibrate does that.";
  return [el("p", { class: "lead" }, `Confidence and accuracy differ by ${percent(estimates.ece[0])} on average; it is rather ${mean > 0 ? "too sure" : "too modest"}.${tempered}`),
    el("div", { class: "two" },
      el("div", {}, el("h3", {}, "Does 80\u202f% mean 80\u202f%?"), reliabilityChart(bins), el("p", { class: "soft" }, "On the dashed line, confidence is what it claims to be; below it, the model is too sure. Larger dots are more pictures."),
        el("details", {}, el("summary", {}, "As a table"), reliabilityTable(bins))),
      el("div", {}, el("h3", {}, "What silence buys"), coverageChart(coverage),
        promise ? el("p", { class: "soft" }, `To be wrong in at most ${percent(promise.max_error, 0)} of its answers on these pictures, it must be ${promise.threshold.toFixed(3)} sure, and then answers ${percent(promise.coverage, 0)}; the true error lies between ${percent(promise.interval[0])} and ${percent(promise.interval[1])}.`)
          : el("p", { class: "soft" }, "No threshold keeps its mistakes below 5\u202f% on these pictures."))),
    sets.length > 0 && [el("h3", {}, "Sets of names"), el("p", { class: "soft lead" }, "Instead of one name, as many as it takes to have the right one among them (split conformal prediction). Threshold from one half of the pictures, seen on the other, in 200 random splits; sets are counted up to the few best species that are kept."),
      plainTable("Sets of names", ["Promised", "Kept", "In nine of ten splits", "Names in a set, mean"], sets.map(({ wanted, coverage: kept, low, high, size }) => [percent(wanted, 0), percent(kept), `${percent(low)} to ${percent(high)}`, `${fewer ? "≥ " : ""}${size.toFixed(2)}`]))]];
}

function galleriesSection(source, number) {
  const seen = source.looked_at ? " A picture opens with its names, and with what the network looked at." : " A picture opens with all its names.";
  return [el("p", { class: "soft lead" }, `Below each picture stands what its label says, then what it was taken for.${seen}`), ...galleryTabs(source.galleries, number).flat()];
}

function mapSection(source) {
  if (!source.map) return null;
  const { method, share, label } = source.map;
  const how = method === "PCA" ? `the two directions in which embeddings vary most (PCA), which have ${percent(share, 0)} of the variance` : "UMAP, which keeps neighbours together; distances between groups mean little";
  return [el("p", { class: "soft lead" }, `${pictures(label.length)} of ${count(new Set(label).size)} species, as near to each other as they look to the network: ${how}.`), new EmbeddingMap(source).element];
}

function facts(entries) {
  return el("dl", { class: "facts" }, Object.entries(entries).filter(([, value]) => value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function origin(source) {
  const { size, speed, provenance } = source;
  return [size && facts({
    Network: size.network, "Size of its pictures": `${size.height} × ${size.width} pixels`, Parameters: large(size.parameters), "Model file": bytes(size.file_bytes),
    ...(speed && { Speed: `${speed.per_second.toPrecision(3)} pictures a second in batches of ${speed.batch}; ${speed.one_ms.toPrecision(3)} ms for one alone, without reading`, "Computed by": `${speed.chosen} (on ${speed.device})` }),
  }), el("h3", {}, "Where the numbers come from"), facts(provenance), facts(report.made_by)];
}

const SECTIONS = [
  ["summary", "How good is it?", "Summary", overview],
  ["compared", "Side by side", "Side by side", () => (report.comparison ? compared() : null)],
  ["species", "Species by species", "Species", species],
  ["confusion", "What is taken for what", "Confusion", confusions],
  ["trust", "Can its certainty be trusted?", "Certainty", trust],
  ["pictures", "Pictures worth a look", "Pictures", galleriesSection],
  ["map", "How it sees them", "Map", mapSection],
  ["origin", "Speed, size and origin", "Origin", origin],
];

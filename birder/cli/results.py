"""``birder results``: tables of results, after the run."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from birder.cli.options import whole_numbers
from birder.cli.progress import printable

if TYPE_CHECKING:
    from birder.inference.results.comparison import Comparison
    from birder.inference.results.summary import Summary

app = App(
    name="results",
    help="Summarise, filter, merge and compare what birder predict and birder embed have written.",
    config=whole_numbers,
    default_parameter=Parameter(negative_iterable=()),
)

Files = Annotated[list[Path], Parameter(consume_multiple=True, negative=())]
Words = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
Statuses = Annotated[tuple[Literal["ok", "unsure", "not_in_list", "error"], ...], Parameter(consume_multiple=True)]
Listed = Annotated[int, Parameter(validator=Number(gte=0))]
Share = Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))]


@app.command
def summary(
    files: Files,
    *,
    by: Literal["folder", "month"] | None = None,
    listed: Listed = 10,
    format: Literal["table", "json"] = "table",
) -> None:
    """Count the species in results, and what could not be read.

    Prints tables on a terminal, and otherwise a line for each species with folder or month if asked for, species, how
    many are sure, how many unsure, mean score, first and last time taken, with tabs between; what else there is to say
    goes to the error stream.

    Args:
        files: Results, .csv, .jsonl, .parquet or .npy; they are counted together.
        by: Count the pictures of each folder, or of each month they were taken in, apart.
        listed: As many of the least sure pictures are listed.
        format: How to print: table, or json.
    """
    from birder.inference.results.summary import Summary
    from birder.inference.results.tables import Table

    tables = [Table(file) for file in files]
    counts = Summary(by=by, listed=listed)
    for table in tables:
        counts.add(table)
    if format == "json":
        print(json.dumps(_summary_facts(counts), indent=1))
    else:
        _show_summary(counts)


@app.command(name="filter")
def select(
    file: Path,
    *,
    output: Path,
    species: Words = (),
    min_score: Share = None,
    max_score: Share = None,
    status: Statuses = (),
    code: Words = (),
    min_novelty: Share = None,
    max_novelty: Share = None,
    taken_after: str = "",
    taken_before: str = "",
) -> int:
    """Write the rows that fit to another file, in the same order.

    A row fits if it fits everything that is given; of several species, statuses or codes, one is enough.

    Exit code: 0 when there are such rows; 1 when there are none; 2 when it could not be done.

    Args:
        file: Results, .csv, .jsonl, .parquet or .npy.
        output: File for the rows, of any of these formats; .npy for what has embeddings.
        species: The most probable class; case does not matter.
        min_score: Least score of the most probable class.
        max_score: Greatest score of the most probable class.
        status: ok, unsure, not_in_list or error.
        code: Code of the reason, such as truncated.
        min_novelty: Least novelty.
        max_novelty: Greatest novelty.
        taken_after: Taken then or later, as 2026, 2026-05, 2026-05-17 or 2026-05-17T06:12.
        taken_before: Taken before that.
    """
    from birder.inference.results.merging import check_free
    from birder.inference.results.output import open_output
    from birder.inference.results.selection import Selection
    from birder.inference.results.tables import Table

    selection = Selection(
        species=species,
        statuses=status,
        codes=code,
        min_novelty=min_novelty,
        max_novelty=max_novelty,
        min_score=min_score,
        max_score=max_score,
        taken_after=taken_after,
        taken_before=taken_before,
    )
    table = Table(file)
    check_free(output, [file])
    with open_output(output, table.layout) as results:
        results.write(selection.rows(table))
    hint = selection.hint()
    count = results.statuses.total()
    _say(f"{_counted(count, 'row')} in {printable(output)}{f'; {printable(hint)}' if hint else ''}")
    return 0 if count else 1


@app.command
def merge(files: Files, *, output: Path) -> None:
    """Join the parts of one run to exactly the file that one machine would have written, or tables one after the other.

    Parts (birder predict --shard 3/16) are known by the NAME.run.json beside each, and may be given in any order. All
    must be there, be whole, and come from the same model, options and backend. Files of whole runs, and without
    NAME.run.json, are put one after the other as they are given.

    Args:
        files: Results, .csv, .jsonl, .parquet or .npy.
        output: File for all rows; in the format of the parts it is equal to that of a run that was not shared out.
    """
    from birder.inference.results.merging import merge

    results = merge(files, output)
    _say(f"{_counted(results.statuses.total(), 'row')} of {_counted(len(files), 'file')} in {printable(output)}")


@app.command
def compare(
    first: Path,
    second: Path,
    *,
    listed: Listed = 20,
    format: Literal["table", "json"] = "table",
) -> int:
    """Compare two runs over the same pictures, which are matched by their paths.

    Prints tables on a terminal, and otherwise a line for each picture that is now taken for another species, with file,
    first species and score, second species and score, and difference, with tabs between; the largest difference first.

    Exit code: 0 when both have the same pictures, each with the same status and the same most probable species; 1 when
    not; 2 when they could not be compared.

    Args:
        first: Results, .csv, .jsonl, .parquet or .npy.
        second: Other results.
        listed: As many of the pictures that differ are listed.
        format: How to print: table, or json.
    """
    from birder.inference.results.comparison import compare
    from birder.inference.results.tables import Table

    comparison = compare(Table(first), Table(second), listed=listed)
    if format == "json":
        print(json.dumps(_comparison_facts(comparison), indent=1))
    else:
        _show_comparison(comparison, (printable(first), printable(second)))
    return 0 if comparison.equal else 1


def _summary_facts(counts: "Summary") -> dict[str, Any]:
    return {
        "pictures": counts.statuses.total(),
        "statuses": dict(counts.statuses),
        "codes": dict(counts.codes.most_common()),
        "species": [
            {**({counts.by: one.group} if counts.by else {}), "species": one.name, "sure": one.sure,
             "unsure": one.unsure, "mean_score": round(one.mean_score, 6), "first": one.first, "last": one.last}
            for one in counts.species
        ],
        "least_sure": [
            {"path": row.path, "species": row.labels[0], "score": row.scores[0]} for row in counts.least_sure
        ],
        **({"newest": [{"path": row.path, "novelty": row.novelty} for row in counts.newest]} if counts.newest else {}),
    }  # fmt: skip


def _show_summary(counts: "Summary") -> None:
    columns = (*([counts.by] if counts.by else []), "species", "sure", "unsure", "mean score", "first", "last")
    lines = [
        (*([one.group] if counts.by else []), one.name, one.sure, one.unsure, f"{one.mean_score:.3f}", one.first,
         one.last)
        for one in counts.species
    ]  # fmt: skip
    _print_table(columns, lines)
    statuses = counts.statuses
    elsewhere = f"{statuses['not_in_list']} not in the list, " if statuses["not_in_list"] else ""
    _say(
        f"{_counted(statuses.total(), 'picture')}: {statuses['ok']} ok, {statuses['unsure']} unsure, {elsewhere}"
        f"{statuses['error']} without an answer"
    )
    for code, count in counts.codes.most_common():
        _say(f"{code}: {count}")
    for row in counts.least_sure:
        _say(f"least sure: {printable(row.path)}: {printable(row.labels[0])} {row.scores[0]:.3f}")
    for row in counts.newest:
        novelty = "" if row.novelty is None else f": novelty {row.novelty:.4f}"
        _say(f"not in the list: {printable(row.path)}{novelty}")


def _comparison_facts(comparison: "Comparison") -> dict[str, Any]:
    return {
        "matched": comparison.matched,
        "answered": comparison.answered,
        "same": comparison.same,
        "greatest_difference": comparison.greatest,
        "statuses": [[*pair, count] for pair, count in comparison.statuses.most_common()],
        "only_first": comparison.only[0],
        "only_second": comparison.only[1],
        "examples_first": comparison.examples[0],
        "examples_second": comparison.examples[1],
        "changes": [dataclasses.asdict(change) for change in comparison.changes],
    }


def _show_comparison(comparison: "Comparison", names: tuple[str, str]) -> None:
    columns = ("file", "species", "score", "now", "score", "difference")
    lines = [
        (change.path, change.labels[0], f"{change.scores[0]:.3f}", change.labels[1], f"{change.scores[1]:.3f}",
         f"{change.difference:.6f}")
        for change in comparison.changes
    ]  # fmt: skip
    _print_table(columns, lines)
    changed = comparison.answered - comparison.same
    share = f" ({comparison.same / comparison.answered:.2%})" if comparison.answered else ""
    _say(
        f"{_counted(comparison.matched, 'picture')} in both, {comparison.answered} with an answer in both: "
        f"{comparison.same} the same{share}, {changed} changed; greatest difference {comparison.greatest:.6f}"
    )
    for (one, two), count in comparison.statuses.most_common():
        if one != two:
            _say(f"{one} in the first, {two} in the second: {count}")
    for name, count, paths in zip(names, comparison.only, comparison.examples, strict=True):
        if count:
            _say(f"only in {name}: {count}, such as {', '.join(map(printable, paths[:3]))}")


def _print_table(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """A table on a terminal, and lines elsewhere; nothing if there are none."""
    rows = [tuple(map(printable, line)) for line in lines]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
    elif rows:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)

"""Several files of results to one."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from birder.errors import ConfigError, DataError
from birder.inference.bulk.inputs import interleave
from birder.inference.results.layout import Layout
from birder.inference.results.output import Output, check_output, open_output
from birder.inference.results.run_file import Run, merged, read_run, run_file, write_run
from birder.inference.results.tables import Table
from birder.inference.rows import Row


def merge(files: Iterable[str | Path], output: str | Path) -> Output:
    """Join the parts of one run to exactly the file that one machine would have written, or tables one after the other.

    Parts of a run are known by the accounts beside them (``NAME.run.json``), and may be given in any order. Files
    without, and those of whole runs, are put one after the other as they are given. No row is looked at twice, nor
    kept: a picture that is in two files is in the result twice.

    Args:
        files: Results in any format.
        output: Where to; of a format that has room for what the files have. An account is written beside it, if all
            files have one.

    Raises:
        DataError: A part is missing, not whole or there twice, or the files are of different kinds: other columns,
            another model, other options or another backend.
        ConfigError: The output cannot be written, or is one of the files.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ConfigError("nothing to merge: give the files of results")
    runs = [read_run(path) for path in paths]
    if any(run and run.shard for run in runs):
        paths, known = _in_order(paths, runs)
    else:
        known = {path: run for path, run in zip(paths, runs, strict=True) if run}
    tables = [Table(path) for path in paths]
    _check_alike(tables, known)
    check_free(output, paths, account=len(known) == len(paths))
    layout = max((table.layout for table in tables), key=lambda layout: (layout.top, layout.open_scores))
    check_output(output, embeddings=layout.embedding > 0)
    shared_out = len(known) == len(paths) and any(run.shard for run in known.values())
    rows = (_whole(table, known.get(table.path)) for table in tables)
    with open_output(output, layout) as results:
        results.write(interleave(list(rows)) if shared_out else (row for part in rows for row in part))
    if len(known) == len(paths):
        write_run(output, merged({path.name: run for path, run in known.items()}))
    return results


def check_free(output: str | Path, inputs: Iterable[Path], *, account: bool = False) -> None:
    """Refuse to write over what is being read, and over the results of a run.

    Args:
        output: Where results shall go.
        inputs: The files that are read.
        account: Whether a new account will be written beside it.

    Raises:
        ConfigError: The output is one of the inputs, or has an account that would no longer be true.
    """
    output = Path(output)
    for path in inputs:
        if output.exists() and output.samefile(path):
            raise ConfigError(f"{output} is one of the files that are read; choose another name for the output")
    if not account and run_file(output).exists():
        raise ConfigError(f"{output} is what a run has written, as {run_file(output).name} says; choose another name")


def _in_order(paths: Sequence[Path], runs: Sequence[Run | None]) -> tuple[list[Path], dict[Path, Run]]:
    """The parts of one run, first to last.

    Raises:
        DataError: They are not one of each.
    """
    parts: dict[int, Path] = {}
    known: dict[Path, Run] = {}
    total = next(run.shard[1] for run in runs if run and run.shard)
    for path, run in zip(paths, runs, strict=True):
        if run is None or run.shard is None:
            what = "has no account beside it" if run is None else "is a whole run"
            raise DataError(f"{path} {what}, while other files are parts of a run; merge the parts alone")
        number, of = run.shard
        if of != total:
            raise DataError(f"{path} is part {number} of {of}, while other files are parts of {total}")
        if number in parts:
            raise DataError(f"{path} and {parts[number]} are both part {number} of {total}")
        parts[number] = path
        known[path] = run
    missing = [str(number) for number in range(1, total + 1) if number not in parts]
    if missing:
        more = ", …" if len(missing) > 20 else ""
        raise DataError(f"{len(missing)} of {total} parts are missing: {', '.join(missing[:20])}{more}")
    ordered = [parts[number] for number in sorted(parts)]
    first = known[ordered[0]]
    for path in ordered:
        if (known[path].listed, known[path].inputs) != (first.listed, first.inputs):
            raise DataError(
                f"{path} and {ordered[0]} are parts of different sets of pictures: files came or went in between, or "
                "other paths were given; run the parts again"
            )
    return ordered, {path: known[path] for path in ordered}


def _check_alike(tables: Sequence[Table], known: dict[Path, Run]) -> None:
    """Raise a ``DataError`` for tables whose rows should not stand in one."""
    for path, run in known.items():
        if not run.finished:
            raise DataError(f"the run of {path} has not ended; the command that began it goes on")
    accounts = iter(known.items())
    first_path, first_run = next(accounts, (Path(), None))
    for path, run in accounts:
        if first_run and (difference := first_run.differs(run)):
            raise DataError(f"{first_path} and {path} are not of one kind: {difference}")
    layouts = {table.layout: table.path for table in reversed(tables) if table.layout.top or table.layout.embedding}
    layouts = layouts or {tables[0].layout: tables[0].path}
    if len(layouts) > 1:
        (one, first), (other, second) = list(layouts.items())[:2]
        columns = f"{_described(other)} in one and {_described(one)} in the other"
        raise DataError(f"{second} and {first} have different columns: {columns}")


def _whole(table: Table, run: Run | None) -> Iterator[Row]:
    """The rows of a table, which must be as many as its account says."""
    count = 0
    for row in table:
        count += 1
        yield row
    if run is not None and count != run.pictures:
        raise DataError(f"{table.path} has {count} rows, but its run ended with {run.pictures}; run it again")


def _described(layout: Layout) -> str:
    """What a table has room for, in words."""
    numbers = f", an embedding of {layout.embedding} numbers" if layout.embedding else ""
    more = [words for words, there in (("open scores", layout.open_scores), ("novelty", layout.novelty)) if there]
    return f"{layout.top} classes{' with ' + ' and '.join(more) if more else ''}{numbers}"

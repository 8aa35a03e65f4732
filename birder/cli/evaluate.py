"""``birder evaluate``: how good a model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import Tally, reading_processes, say

if TYPE_CHECKING:
    from rich.console import Console

    from birder.evaluation.classification import Evaluation


def evaluate(
    model: str,
    *,
    data: Path,
    output: Path | None = None,
    network: str | None = None,
    rows: Annotated[int, Parameter(validator=Number(gte=0))] = 20,
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
) -> int:
    """Measure a model on labelled photographs.

    Exit code: 0 when every picture was classified; 1 when some could not be read (the numbers are of the others); 2
    when nothing could be measured: wrong use, an unreadable model, pictures of other classes.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors.
        data: Folder of species/picture.jpg, a CSV file with the columns path and label, or shards.
        output: Folder for report.json, per_class.csv, confused.csv and predictions.csv.
        network: Name of the network, if the model file does not tell.
        rows: Species to list, worst first, and half as many confused pairs.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.data.samples import read_samples
    from birder.data.tables import check_folder
    from birder.device import resolve_device
    from birder.evaluation.classification import evaluate
    from birder.evaluation.report import write_report
    from birder.hub.fetch import locate
    from birder.model_file import load_model

    if output is not None:
        check_folder(output)
    path, published = locate(model)
    net, info = load_model(path, network=network or published)
    samples = read_samples(data, info.class_to_idx)
    tally = Tally(len(samples), Console(stderr=True))
    workers = reading_processes(len(samples), batch_size) if workers is None else workers
    where = resolve_device(device)
    result = evaluate(net, info, samples, batch_size=batch_size, workers=workers, device=where, watch=tally.watch)
    _show(result, Console(), rows)
    if output is not None:
        write_report(output, result)
    tally.list_failures()
    say(tally.console, tally.summary())
    return 1 if result.failures else 0


def _show(result: "Evaluation", console: "Console", rows: int) -> None:
    from rich.table import Table
    from rich.text import Text

    low, high = result.top1_interval
    say(console, f"top-1     {result.top1:.1%}  (95 % interval {low:.1%} to {high:.1%}, {result.pictures} pictures)")
    say(console, f"top-3     {result.top3:.1%}")
    say(console, f"macro F1  {result.macro_f1:.1%}  ({len(result.names)} classes of the model)")
    worst = sorted((row for row in result.classes if row.samples), key=lambda row: (row.f1, row.name))
    if rows and worst:
        table = Table("species, worst first", "F1", "precision", "recall", "pictures")
        for score in worst[:rows]:
            numbers = (_percent(score.f1), _percent(score.precision), _percent(score.recall), str(score.samples))
            table.add_row(Text(score.name), *numbers)
        console.print(table)
        if len(worst) > rows:
            say(console, f"and {len(worst) - rows} more species; --rows shows more, --output keeps them all")
    if rows and result.confused:
        table = Table("species", "taken for", "times", "of its pictures")
        for pair in result.confused[: max(1, rows // 2)]:
            table.add_row(Text(pair.name), Text(pair.predicted), str(pair.count), _percent(pair.share))
        console.print(table)


def _percent(value: float) -> str:
    return "" if value != value else f"{value:.1%}"  # NaN is not equal to itself

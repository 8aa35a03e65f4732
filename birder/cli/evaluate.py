"""``birder evaluate``: how good a model is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import Tally, reading_processes, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from birder.evaluation.classification import Evaluation

_MAX_ERROR = 0.05  # of the answers above the threshold that is shown


def evaluate(
    model: str,
    *,
    data: Path,
    output: Path | None = None,
    taxonomy: Path | None = None,
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
        taxonomy: A CSV file with the columns species (or label, or name) and family, of every species of the model.
            Then families are counted, too, and --output has families.csv.
        network: Name of the network, if the model file does not tell.
        rows: Species to list, worst first, as many families, and half as many confused pairs.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.data.samples import read_samples
    from birder.data.tables import check_folder
    from birder.data.taxonomy import read_taxonomy
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
    family_of = None if taxonomy is None else read_taxonomy(taxonomy, info.class_to_idx)
    tally = Tally(len(samples), Console(stderr=True))
    workers = reading_processes(len(samples), batch_size) if workers is None else workers
    where = resolve_device(device)
    result = evaluate(net, info, samples, batch_size=batch_size, workers=workers, device=where, watch=tally.watch)
    console = Console()
    _show(result, console)
    if info.calibration is not None:
        say(console, f"its probabilities are calibrated, with a temperature of {info.calibration.temperature:.3g}")
    _list(result, console, rows, family_of)
    if output is not None:
        write_report(output, result, family_of)
    tally.list_failures()
    say(tally.console, tally.summary())
    return 1 if result.failures else 0


def _show(result: "Evaluation", console: "Console") -> None:
    from birder.evaluation.reliability import threshold_for

    low, high = result.top1_interval
    say(console, f"top-1     {result.top1:.1%}  (95 % interval {low:.1%} to {high:.1%}, {result.pictures} pictures)")
    for title, name, more in (
        ("top-3", "top3", ""),
        ("top-5", "top5", ""),
        ("macro F1", "macro_f1", f", {len(result.names)} classes of the model"),
        ("balanced", "balanced_accuracy", ", the mean over species of the accuracy of each"),
        ("ECE", "ece", ", how far confidence lies from accuracy"),
    ):
        found = result.estimates[name]
        say(console, f"{title:9} {found.value:.1%}  ({found.low:.1%} to {found.high:.1%}{more})")
    found = result.estimates["brier"]
    say(console, f"Brier     {found.value:.3f}  ({found.low:.3f} to {found.high:.3f}, 0 is best)")
    sure = threshold_for(result.confidence, result.right, max_error=_MAX_ERROR)
    if sure is not None:
        say(
            console,
            f"answers with a score of {sure.threshold:.3f} or more, {sure.coverage:.1%} of all, are right in "
            f"{1 - sure.error:.1%}",
        )


def _list(result: "Evaluation", console: "Console", rows: int, family_of: "Mapping[str, str] | None") -> None:
    if rows:
        _list_species(result, console, rows)
        _list_mistakes(result, console, max(1, rows // 2))
    if family_of is not None:
        _list_families(result, console, rows, family_of)


def _list_species(result: "Evaluation", console: "Console", rows: int) -> None:
    from rich.table import Table
    from rich.text import Text

    worst = sorted((row for row in result.classes if row.samples), key=lambda row: (row.f1, row.name))
    table = Table("species, worst first", "F1", "precision", "recall", "pictures")
    for score in worst[:rows]:
        numbers = (_percent(score.f1), _percent(score.precision), _percent(score.recall), str(score.samples))
        table.add_row(Text(score.name), *numbers)
    console.print(table)
    if len(worst) > rows:
        say(console, f"and {len(worst) - rows} more species; --rows shows more, --output keeps them all")


def _list_mistakes(result: "Evaluation", console: "Console", rows: int) -> None:
    from rich.table import Table
    from rich.text import Text

    if not result.confused:
        return
    table = Table("species", "taken for", "times", "of its pictures")
    for pair in result.confused[:rows]:
        table.add_row(Text(pair.name), Text(pair.predicted), str(pair.count), _percent(pair.share))
    console.print(table)


def _list_families(result: "Evaluation", console: "Console", rows: int, family_of: "Mapping[str, str]") -> None:
    from rich.table import Table
    from rich.text import Text

    from birder.evaluation.metrics import cross_family_errors, per_family

    answers = (result.labels, result.predicted, result.names, family_of)
    families = sorted(
        (row for row in per_family(*answers) if row.samples), key=lambda row: (row.species_right, row.name)
    )
    table = Table("family, worst first", "right species", "right family", "species", "pictures")
    for row in families[:rows]:
        numbers = (_percent(row.species_right), _percent(row.recall), str(row.species), str(row.samples))
        table.add_row(Text(row.name), *numbers)
    if rows:
        console.print(table)
    if not result.right.all():
        say(console, f"of the mistakes, {cross_family_errors(*answers):.1%} name a species of another family")


def _percent(value: float) -> str:
    return "" if value != value else f"{value:.1%}"  # NaN is not equal to itself

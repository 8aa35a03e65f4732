"""``birder calibrate``: a model whose scores mean what they say, and that knows what is not in its list."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.calibration.wanted import Wanted
from birder.cli.progress import Tally, printable, reading_processes, say

if TYPE_CHECKING:
    from birder.calibration.calibrate import Found
    from birder.data.samples import Samples
    from birder.model_file import ModelInfo
    from birder.networks.base import Network


def calibrate(
    model: str,
    *,
    data: Path,
    output: Path | None = None,
    wanted: Annotated[Wanted, Parameter(name="*")] = Wanted(),  # noqa: B008
    others: Path | None = None,
    centroids: Path | None = None,
    network: str | None = None,
    batch_size: Annotated[int, Parameter(validator=Number(gte=1))] = 32,
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
) -> int:
    """Make scores mean what they say, by labelled photographs that the model was not trained on.

    Writes the same model with a temperature (a score of 80 % is then right in 80 % of the cases), the least score that
    keeps to --max-error (birder predict --min-score auto), and what tells pictures that show none of its species
    (status not_in_list). The model itself is not changed. Figures are of pictures that took no part in the fit.

    Exit code: 0 when every picture could be read; 1 when some could not; 2 when nothing could be done: wrong use, an
    unreadable model, pictures of other classes, fewer than 100.

    Args:
        model: Name of a published model, or a model file, .pt or .safetensors.
        data: Held-out pictures: a folder of species/picture.jpg, a CSV file with the columns path and label, or shards.
        output: The new model file; left out, MODEL-calibrated in this folder.
        wanted: What to promise.
        others: Pictures of things that are not in the model's list, to measure how well they are told; novelty is left
            out if it does no better than a low score.
        centroids: The pictures that the model was trained on, for the kinds of novelty that look at distances to the
            species: there they know the species better than from held-out pictures.
        network: Name of the network, if the model file does not tell.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from birder.calibration.output import check_output, write_calibrated
    from birder.data.samples import read_pictures, read_samples
    from birder.device import resolve_device
    from birder.hub.fetch import locate
    from birder.model_file import load_model

    path, published = locate(model)
    target = check_output(path, output)
    net, info = load_model(path, network=network or published)
    pictures = _Pictures(
        read_samples(data, info.class_to_idx),
        None if others is None else read_pictures(others),
        None if centroids is None else read_samples(centroids, info.class_to_idx),
    )
    found, tally = _fitted(net.to(resolve_device(device)), info, pictures, wanted, (batch_size, workers))
    write_calibrated(path, target, found.calibration, network=net.name)
    for line in lines(found, wanted.coverage):
        print(line)
    tally.list_failures()
    say(tally.console, f"{tally.summary()}; the calibrated model is {printable(target)}")
    return 1 if found.failures else 0


class _Pictures(NamedTuple):
    data: "Samples"
    others: "Samples | None"
    training: "Samples | None"


def _fitted(
    net: "Network", info: "ModelInfo", pictures: _Pictures, wanted: Wanted, reading: tuple[int, int | None]
) -> "tuple[Found, Tally]":
    """Calibrate, and show how far it is."""
    from rich.console import Console

    from birder.calibration.calibrate import calibrate

    total = sum(len(part) for part in pictures if part is not None)
    batch_size, workers = reading
    tally = Tally(total, Console(stderr=True))
    with tally.bar():
        found = calibrate(
            net,
            info,
            pictures.data,
            wanted,
            others=pictures.others,
            training=pictures.training,
            batch_size=batch_size,
            workers=reading_processes(total, batch_size) if workers is None else workers,
            watch=tally.note,
        )
    return found, tally


def lines(found: "Found", coverage: float) -> list[str]:
    """What was found, in words."""
    calibration, threshold, pictures = found.calibration, found.threshold, found.calibration.pictures
    said = [
        f"temperature        {calibration.temperature:.3f}  ({pictures} pictures, top-1 {found.accuracy:.1%})",
        f"calibration error  {found.ece[0]:.1%} before, {found.ece[1]:.1%} after",
        f"log-likelihood     {-found.nll[0]:.3f} before, {-found.nll[1]:.3f} after",
        f"prediction sets    {found.set_size:.1f} species in the mean, with the right one in {found.covered:.1%} "
        f"({coverage:.0%} asked for)",
    ]
    if threshold is None:
        said.append(f"threshold          none keeps to {calibration.max_error:.1%} mistakes on these pictures")
    else:
        low, high = threshold.interval
        said.append(
            f"threshold          {threshold.threshold:.3f} answers {threshold.coverage:.1%} of the pictures, "
            f"{threshold.error:.1%} of them wrongly (95 % interval {low:.1%} to {high:.1%})"
        )
    return [*said, *_novelty_lines(found)]


def _novelty_lines(found: "Found") -> list[str]:
    novelty, measured = found.calibration.novelty, found.separation
    said = []
    if measured is not None:
        area, share, better = measured.auroc, measured.fpr95, measured.better
        said = [
            f"other things       AUROC {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f}), "
            f"{better.value:+.3f} ({better.low:+.3f} to {better.high:+.3f}) against a low score alone",
            f"                   {share.value:.1%} of them pass for known where 95 % of the known do",
        ]
    if novelty is not None:
        return [*said, f"novelty            {novelty.kind}; not_in_list above {novelty.threshold:g}"]
    return [*said, "novelty            left out: surely no better than a low score"] if said else said

"""``birder probe``: what a network's embeddings are worth, without training it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from birder.cli.progress import Tally, printable, reading_processes, say

if TYPE_CHECKING:
    from rich.console import Console

    from birder.data.samples import Samples
    from birder.evaluation.metrics import Accuracy
    from birder.evaluation.probe import Probe
    from birder.networks import Network
    from birder.signature import RGBStats

_LINE_EVERY_S = 60.0
_HELD_OUT = 0.2  # part of --data that the classifiers are asked about where there is no --val

Whole = Annotated[int, Parameter(validator=Number(gte=1))]


def probe(
    model: str,
    *,
    data: Path,
    val: Path | None = None,
    untrained: bool = False,
    size: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    k: Whole = 20,
    shots: Annotated[tuple[Whole, ...], Parameter(consume_multiple=True)] = (1, 2, 5, 10, 20),
    output: Path | None = None,
    network: str | None = None,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    batch_size: Whole = 32,
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
) -> int:
    """Judge a network by its embeddings of labelled photographs, without training it.

    Three classifiers are made of the embeddings of --data, and asked about those of --val: the nearest neighbours, a
    linear probe, and the nearest class mean of a few pictures. The same with --untrained is the floor to compare with.

    Exit code: 0 when every picture was read; 1 when some could not be (the numbers are of the others); 2 when nothing
    could be measured: wrong use, an unreadable model, pictures of other species.

    Args:
        model: A published model, or a model file, .pt or .safetensors; with --untrained, name of a network.
        data: Pictures to learn from: a folder of species/picture.jpg, a CSV file with path and label, or shards.
        val: Pictures to ask about, of the same species; left out, a fifth of --data, as birder data split takes it.
        untrained: Take the network of that name with new random weights.
        size: Height and width of the pictures; left out, those of the model.
        k: Nearest neighbours that vote.
        shots: Pictures of each species to learn from, for the few-shot curve.
        output: File for all numbers, .json or .csv.
        network: Name of the network, if the model file does not tell.
        seed: Of all that is drawn: the few pictures, the parts of --data, the weights of --untrained.
        batch_size: Pictures that go through the network together.
        workers: Processes that read pictures ahead; left out, what suits this machine.
        device: Where to compute, such as cpu or cuda; auto is the fastest there is.
    """
    from rich.console import Console

    from birder.device import resolve_device
    from birder.evaluation.probe import check_output, probe, write_probe

    if output is not None:
        check_output(output)
    net, stats = _network(model, untrained, size, network, seed)
    training, validation, origin = _parts(data, val, seed)
    tally = Tally(total := len(training) + len(validation), Console(stderr=True))
    workers = reading_processes(total, batch_size) if workers is None else workers
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "device": resolve_device(device)}
    with _told(tally.console) as options["tell"]:
        result = probe(net, stats, training, validation, k=k, shots=shots, seed=seed, watch=tally.watch, **options)
    _show(result, Console(), _title(net, model, untrained), origin)
    if output is not None:
        about = {"model": model, "network": net.name, "untrained": untrained, "size": list(net.size), "seed": seed}
        write_probe(output, result, {**about, "data": str(data), "val": origin})
    tally.list_failures()
    say(tally.console, tally.summary())
    return 1 if result.failures else 0


@contextmanager
def _told(console: "Console") -> "Iterator[Callable[[str], None]]":
    """Shows what is being computed: in one line that goes away on a terminal, a line now and then elsewhere."""
    status, said = console.status(""), time.monotonic()

    def tell(text: str) -> None:
        nonlocal said
        if console.is_terminal:
            status.update(text)
            status.start()  # only now, as the bar of the pictures had the terminal; a second time it does nothing
        elif time.monotonic() - said > _LINE_EVERY_S:
            said = time.monotonic()
            say(console, text)

    try:
        yield tell
    finally:
        status.stop()


def _network(
    model: str, untrained: bool, size: int | None, network: str | None, seed: int
) -> "tuple[Network, RGBStats]":
    import torch

    from birder.errors import ConfigError
    from birder.hub.fetch import locate
    from birder.model_file import load_model
    from birder.networks import create_network
    from birder.signature import rgb_stats

    sides = None if size is None else (size, size)
    if not untrained:
        path, published = locate(model)
        net, info = load_model(path, network=network or published, size=sides)
        return net, info.rgb_stats
    if network is not None:
        raise ConfigError(f"network: with --untrained, {model} is the name of the network already: leave --network out")
    torch.manual_seed(seed)
    return create_network(model, 0, size=sides).eval().requires_grad_(False), rgb_stats("imagenet")


def _parts(data: Path, val: Path | None, seed: int) -> "tuple[Samples, Samples, str]":
    """What to learn from, what to ask about, and where that comes from."""
    from birder.data.samples import read_samples
    from birder.evaluation.probe import split_off

    samples = read_samples(data)
    if val is not None:
        return samples, read_samples(val, samples.class_to_idx), str(val)
    return *split_off(data, samples, val=_HELD_OUT, seed=seed), f"{_HELD_OUT:.0%} of {data}, held out"


def _title(net: "Network", model: str, untrained: bool) -> str:
    name = f"{net.name} with random weights" if untrained else printable(model)
    return f"{name}, pictures of {net.size[0]} x {net.size[1]}"


def _show(result: "Probe", console: "Console", title: str, origin: str) -> None:
    from rich.table import Table
    from rich.text import Text

    say(console, title)
    say(console, f"learned from {result.training} pictures of {result.classes} species")
    say(console, f"asked about  {result.validation} pictures: {printable(origin)}")
    table = Table("classifier on the embeddings", "accuracy", "95 % interval", "between draws")
    rows: Sequence[tuple[str, Accuracy, str]] = [
        (f"{result.neighbours} nearest neighbours, top-1", result.knn, ""),
        ("linear probe, top-1", result.linear, ""),
        ("linear probe, top-3", result.linear_top3, ""),
        *((_few(row.shots), row.accuracy, f"± {row.spread:.1%}") for row in result.few_shot),
    ]
    for name, accuracy, spread in rows:
        low, high = accuracy.interval
        table.add_row(Text(name), f"{accuracy.value:.1%}", f"{low:.1%} to {high:.1%}", spread)
    console.print(table)
    for row in result.few_shot:
        if row.incomplete:
            say(console, f"{row.incomplete} of {result.classes} species have fewer than {row.shots} pictures")
    numbers = result.diagnosis
    say(console, f"effective rank  {numbers['rank']:.1f} of {result.dimensions} dimensions")
    say(console, f"deviation       {numbers['deviation']:.2f}  (1 spread evenly, 0 collapsed)")
    say(console, f"uniformity      {numbers['uniformity']:.2f}  (about -4 spread evenly, 0 collapsed)")


def _few(shots: int) -> str:
    return f"nearest mean, {shots} picture{'' if shots == 1 else 's'} each"

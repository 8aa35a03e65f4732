"""``birder train``: a network from your own photographs."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from birder.cli.options import network_options, whole_numbers
from birder.cli.progress import say
from birder.gallery import check_network_name
from birder.training.recipe import Recipe, read_table


def _recipe_file(application: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Let the file of ``--recipe`` fill in what the command line leaves open."""
    files = [token.value for argument in arguments if argument.name == "--recipe" for token in argument.tokens]
    table = read_table(Path(files[0])) if files else {}
    network_options(arguments, table.pop("network_options", {}))
    if files:
        Dict(table, use_commands_as_keys=False, source=files[0])(application, commands, arguments)


app = App(
    name="train",
    config=(whole_numbers, _recipe_file),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


@app.default
def train(
    *,
    recipe: Path | None = None,
    out: Path | None = None,
    options: Annotated[Recipe, Parameter(name="*")],
) -> None:
    """Train a network on your own photographs.

    Needs a folder of species/picture.jpg, or a CSV file with the columns path and label. The run's folder gets the
    best and the last model, the metrics, and the recipe, which trains the same again. A run that was stopped goes on
    when the same command is given.

    Options of a network are given one by one, as in `--network-options.drop_path_rate 0.1`, or, where one has several
    values, `--network-options.num_layers "[2, 2, 6, 2]"`.

    Args:
        recipe: A recipe file to start from; options of the command line replace its own.
        out: Folder for the run; runs/NETWORK when left out.
        options: Every choice of the run.
    """
    check_network_name(options.network)  # a slip of the finger is answered before torch is loaded
    from rich.console import Console

    from birder.training.fit import fit

    console = Console(stderr=True)
    fitted = fit(options, out, console=console)
    top1 = "" if fitted.top1 is None else f", {fitted.top1:.1%} of the validation pictures right"
    say(console, f"{fitted.model}{top1}")
    say(console, f"birder predict {fitted.model} PHOTOS names the species in your photographs")

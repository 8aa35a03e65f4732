"""``birder train`` and ``birder distill``: a network from your own photographs."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from birder.cli.options import network_options, whole_numbers
from birder.cli.progress import say
from birder.errors import ConfigError
from birder.gallery import check_network_name
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.training.recipe import Recipe, read_table


@dataclass(frozen=True, kw_only=True)
class Supervised(Recipe):
    """A recipe that learns from labels; on the command line, options have one kind each."""

    objective: ClassificationConfig = ClassificationConfig()
    """What is learned."""


@dataclass(frozen=True, kw_only=True)
class Distilled(Recipe):
    """A recipe that learns from labels and a teacher."""

    objective: DistillationConfig = field()  # or it would have the default of the class above
    """What is learned."""


def recipe_file(application: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Let the file of ``--recipe`` fill in what the command line leaves open.

    Raises:
        ConfigError: It is not there, has mistakes, or is for another command.
    """
    files = [token.value for argument in arguments if argument.name == "--recipe" for token in argument.tokens]
    table = read_table(Path(files[0])) if files else {}
    network_options(arguments, table.pop("network_options", {}))
    if files:
        command = _command_for(table.get("objective", {}).get("name"))
        if command and command != commands:
            raise ConfigError(f"{files[0]} is for another command: birder {' '.join(command)} --recipe {files[0]}")
        # Under the name of the command, as entries could otherwise be taken for other commands, such as data.
        for name in reversed(commands):
            table = {name: table}
        Dict(table, source=files[0])(application, commands, arguments)


def _command_for(objective: str | None) -> tuple[str, ...]:
    """What learns an objective; nothing where none is named."""
    if objective is None:
        return ()
    return {"classification": ("train",), "distillation": ("distill",)}.get(objective, ("pretrain", objective))


def _app(name: str) -> App:
    parameters = Parameter(consume_multiple=True, negative_iterable=())
    return App(name=name, config=(whole_numbers, recipe_file), default_parameter=parameters)


train_app, distill_app = _app("train"), _app("distill")


@train_app.default
def train(
    *,
    recipe: Path | None = None,
    out: Path | None = None,
    options: Annotated[Supervised, Parameter(name="*")],
) -> None:
    """Train a network on your own photographs.

    Needs a folder of species/picture.jpg, a CSV file with the columns path and label, or shards. The run's folder gets
    the best and the last model, the metrics, checkpoints, and the recipe, which trains the same again. A run that was
    stopped or killed goes on when the same command is given; one that was asked to stop ends with exit code 75.

    Options of a network are given one by one, as in `--network-options.drop_path_rate 0.1`, or, where one has several
    values, `--network-options.num_layers "[2, 2, 6, 2]"`. To train with several processes, begin with
    `torchrun --nproc-per-node 4 -m birder train`.

    Args:
        recipe: A recipe file to start from; options of the command line replace its own.
        out: Folder for the run; runs/NETWORK when left out.
        options: Every choice of the run.
    """
    train_with(options, out)


@distill_app.default
def distill(
    *,
    recipe: Path | None = None,
    out: Path | None = None,
    options: Annotated[Distilled, Parameter(name="*")],
) -> None:
    """Train a network on your own photographs, with a trained one as its teacher.

    All else is as in `birder train`.

    Args:
        recipe: A recipe file to start from; options of the command line replace its own.
        out: Folder for the run; runs/NETWORK when left out.
        options: Every choice of the run.
    """
    train_with(options, out)


def train_with(options: Recipe, out: Path | None) -> None:
    """Train as the options of a command say, and tell what came of it."""
    if options.network is not None:
        check_network_name(options.network)  # a slip of the finger is answered before torch is loaded
    from rich.console import Console

    from birder.distributed import first_of_all
    from birder.training.fit import fit

    plain = Recipe(**{each.name: getattr(options, each.name) for each in fields(Recipe)})
    console = Console(stderr=True)
    fitted = fit(plain, out, console=console)
    if not first_of_all():
        return
    if plain.objective.labelled:
        top1 = "" if fitted.top1 is None else f", {fitted.top1:.1%} of the validation pictures right"
        say(console, f"{fitted.model}{top1}")
        say(console, f"birder predict {fitted.model} PHOTOS names the species in your photographs")
    else:
        say(console, f"{fitted.model}")
        say(console, f"birder train --start {fitted.model} --data LABELLED learns species from here")

"""``birder pretrain``: a network that learns from pictures without labels, by one method or another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from birder.cli.options import whole_numbers
from birder.cli.pretrain_show import app as show
from birder.cli.train import recipe_file, train_with
from birder.objectives import configs
from birder.objectives.configs import Unlabelled
from birder.training.recipe import Recipe

METHODS: tuple[type[Unlabelled], ...] = (
    configs.MAEConfig,
    configs.FCMAEConfig,
    configs.SimMIMConfig,
    configs.Data2VecConfig,
    configs.Data2Vec2Config,
    configs.IJEPAConfig,
    configs.MMCRConfig,
    configs.SimCLRConfig,
    configs.BYOLConfig,
    configs.BarlowTwinsConfig,
    configs.VICRegConfig,
    configs.DINOConfig,
    configs.IBOTConfig,
    configs.RotationConfig,
)
"""The options of each method."""

app = App(
    name="pretrain",
    help="Let a network learn from your photographs without labels, before it is trained on a few that have some.",
    config=(whole_numbers, recipe_file),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


def _command(method: type[Unlabelled]) -> Callable[..., None]:
    """The command of one method, whose options of the objective are those of the method."""

    @dataclass(frozen=True, kw_only=True)
    class Options(Recipe):
        objective: method = method()  # type: ignore[valid-type, call-arg]
        """What is learned."""

    def pretrain(
        *,
        recipe: Path | None = None,
        out: Path | None = None,
        options: Annotated[Options, Parameter(name="*")],
    ) -> None:
        train_with(options, out)

    pretrain.__doc__ = f"""{method.__doc__}

    Needs a folder of pictures, a CSV file with the column path, or shards; labels are not looked at, but for those of
    ``--val``. What is left is a model file without classifier, which ``birder train --start`` goes on from. All else is
    as in ``birder train``: the folder of the run, how it goes on, options of a network, several processes.

    Args:
        recipe: A recipe file to start from; options of the command line replace its own.
        out: Folder for the run; runs/NETWORK when left out.
        options: Every choice of the run.
    """
    return pretrain


for _method in METHODS:
    app.command(_command(_method), name=_method.name)
app.command(show)

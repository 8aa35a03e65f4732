"""``birder recipes``: how the published models came about, as files that train the same again."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from birder.errors import ConfigError, suggestion
from birder.recipes import cards
from birder.recipes.chain import Stage, write_chain
from birder.recipes.starter import starter

CHAINS: dict[str, Callable[..., list[Stage]]] = {
    chain.__name__: chain
    for chain in (
        cards.convnext_v2_tiny_intermediate,
        cards.pvt_v2_b2_mmcr,
        cards.regnet_y_8g_intermediate,
        cards.vit_l16_mim,
        cards.vit_parallel_data2vec,
        starter,
    )
}
"""By their names."""
_SOURCES = {"data": "data/unlabelled", "world": "data/world", "region": "data/train"}
"""Where pictures are taken to lie."""


def recipes(
    name: str | None = None,
    *,
    out: Path | None = None,
    data: str | None = None,
    world: str | None = None,
    region: str | None = None,
    val: str | None = None,
    as_published: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List the chains of trainings behind the published models, or write one as recipe files, to be changed and run.

    Args:
        name: One chain, whose stages are listed; all chains when left out.
        out: Folder for one recipe file of each stage; the commands that run them are printed.
        data: Pictures to learn from without labels; data/unlabelled when left out.
        world: Labelled pictures of many species; data/world when left out.
        region: Labelled pictures of the species that the model is for; data/train when left out.
        val: Others of these, to validate on.
        as_published: Repeat what the published model's training did otherwise than its paper.
    """
    if name is None:
        for chain in CHAINS:
            print(f"{chain}: {_first_line(chain)}")
        return
    if name not in CHAINS:
        raise ConfigError(f"{name}: no such chain{suggestion(name, CHAINS)}; birder recipes lists all")
    given = {"data": data, "world": world, "region": region, "val": val, "as_published": as_published or None}
    takes = inspect.signature(CHAINS[name]).parameters
    if as_published and "as_published" not in takes:
        raise ConfigError(f"--as-published: the model of {name} was trained as its paper says")
    unused = [key for key, value in given.items() if value is not None and key not in takes]
    if unused:
        raise ConfigError(f"--{unused[0]}: {name} has no use for it; it takes {', '.join(takes)}")
    sources = {key: value for key, value in (_SOURCES | _given(given)).items() if key in takes}
    stages = CHAINS[name](**sources)
    print(_first_line(name))
    for stage in stages:
        recipe = stage.recipe
        print(
            f"\n{stage.name}: {stage.purpose}\n  {recipe.objective.name}, {recipe.epochs} epochs of batches of "
            f"{recipe.batch_size} at {recipe.size[0] if recipe.size else 'any'} pixels, {recipe.optim.name}, rate "
            f"{recipe.optim.lr:g}; {stage.cost} for a million pictures"
        )
    if out is not None:
        print(*["", *write_chain(stages, out)], sep="\n")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _first_line(name: str) -> str:
    return (CHAINS[name].__doc__ or "").splitlines()[0]

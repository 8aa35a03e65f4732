"""The chains of the published models at toy scale: every stage does what it is for. Minutes each, by ``make twins``."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from birder.cli.recipes import CHAINS
from birder.data.samples import read_pictures
from birder.data.transforms import classification_transform
from birder.recipes import twins
from birder.recipes.chain import Stage, run_chain
from birder.recipes.twins import Tables, draw
from birder.signature import rgb_stats
from birder.training.fit import Fitted, fit
from birder.training.recipe import Optim, Schedule

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Trained:
    """A chain that has run, and what it is compared with."""

    stages: dict[str, Stage]
    results: dict[str, Fitted]
    folder: Path

    def last(self, name: str, number: str) -> float:
        """A number of the last epoch of a stage."""
        lines = (self.results[name].folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        value: float = [entry for entry in map(json.loads, lines) if entry["kind"] == "epoch"][-1][number]
        print(f"{name}: {number} {value:.3f}")
        return value

    def untrained(self, name: str) -> float:
        """What a stage gives when the one before it has learned nothing."""
        first, stage = next(iter(self.stages.values())).recipe, self.stages[name].recipe
        recipe = replace(stage, network=first.network, network_options=first.network_options)
        if stage.freeze is None:  # what it is compared with had the steps of the probe, too
            recipe = replace(recipe, epochs=stage.epochs + self.stages["probe"].recipe.epochs)
        value = fit(recipe, self.folder / f"untrained-{name}").top1
        assert value is not None
        print(f"{name} from nothing: {value:.3f}")
        return value

    def top1(self, name: str) -> float:
        """How many pictures a stage names right."""
        value = self.results[name].top1
        assert value is not None
        print(f"{name}: {value:.3f}")
        return value


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def train(tables: Tables, tmp_path: Path) -> Callable[[Callable[[Tables], list[Stage]]], Trained]:
    def trained(chain: Callable[[Tables], list[Stage]]) -> Trained:
        stages = {stage.name: stage for stage in chain(tables)}
        results = run_chain(list(stages.values()), tmp_path)
        return Trained(stages, dict(zip(stages, results, strict=True)), tmp_path)

    return trained


Train = Callable[[Callable[[Tables], list[Stage]]], Trained]


def neighbours_of_untrained(trained: Trained) -> float:
    """What nearest neighbours of the embeddings say before anything is learned."""
    stage = next(iter(trained.stages.values()))
    still = replace(stage.recipe, epochs=1, optim=Optim(lr=0.0, weight_decay=0.0), schedule=Schedule())
    value = fit(still, trained.folder / "untrained").top1
    assert value is not None
    print(f"neighbours before: {value:.3f}")
    return value


def error_of_the_mean_picture(pictures: Path) -> float:
    """Mean squared error, in normalised pixels, of drawing the mean of all pictures."""
    samples, transform = read_pictures(pictures), classification_transform((64, 64), rgb_stats("imagenet"))
    images = torch.stack([transform(samples.read(index)) for index in range(0, len(samples), 4)])
    value = float(images.var(dim=0, correction=0).mean())
    print(f"error of the mean picture: {value:.3f}")
    return value


def test_every_chain_has_a_twin_of_the_same_stages(tables: Tables) -> None:
    for name, chain in CHAINS.items():
        words = {word: word for word in ("data", "world", "region") if word in chain.__annotations__}
        whole, small = chain(**words), getattr(twins, name)(tables)
        assert small[0].recipe.objective.name == whole[0].recipe.objective.name
        assert {stage.name for stage in whole} <= {stage.name for stage in small}


def test_species_from_elsewhere_help_a_convnext(train: Train) -> None:
    trained = train(twins.convnext_v2_tiny_intermediate)
    assert trained.last("intermediate", "accuracy") > 0.5
    assert trained.top1("probe") > trained.untrained("probe") + 0.2
    assert trained.top1("fine-tuning") > trained.untrained("fine-tuning") + 0.1


def test_species_from_elsewhere_at_two_sizes_help_a_regnet(train: Train) -> None:
    trained = train(twins.regnet_y_8g_intermediate)
    assert trained.last("larger", "loss") < trained.last("intermediate", "loss")
    assert trained.top1("probe") > trained.untrained("probe") + 0.3
    assert trained.top1("fine-tuning") > trained.untrained("fine-tuning") + 0.2


def test_mmcr_helps_a_pvt(train: Train) -> None:
    trained = train(twins.pvt_v2_b2_mmcr)
    assert trained.last("mmcr", "val_knn") > neighbours_of_untrained(trained) + 0.05
    assert trained.top1("probe") > trained.untrained("probe") + 0.08
    assert trained.top1("fine-tuning") > trained.untrained("fine-tuning") + 0.03


def test_mae_draws_better_than_the_mean_picture_and_helps_a_vit(train: Train, tables: Tables) -> None:
    trained = train(twins.vit_l16_mim)
    assert trained.last("mae", "loss") < 0.5 * error_of_the_mean_picture(tables.everything)
    assert trained.top1("fine-tuning") > trained.untrained("fine-tuning") + 0.05


def test_data2vec_and_species_from_elsewhere_help_a_vit_parallel(train: Train) -> None:
    trained = train(twins.vit_parallel_data2vec)
    scratch = trained.untrained("fine-tuning")
    # Without the species from elsewhere, which teach more than it; and from its end, as its neighbours say little yet.
    tuning = replace(trained.stages["fine-tuning"].recipe, start=str(trained.results["data2vec"].model))
    steps = tuning.epochs + trained.stages["probe"].recipe.epochs
    directly = fit(replace(tuning, epochs=steps), trained.folder / "directly").top1
    print(f"fine-tuning from data2vec: {directly:.3f}")
    assert directly is not None and directly > scratch + 0.03
    assert trained.top1("fine-tuning") > directly + 0.1

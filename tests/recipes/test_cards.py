"""The chains behind the published models: they fit together, and what they write trains."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from birder.cli.__main__ import app
from birder.cli.recipes import CHAINS
from birder.data.drawn import DrawnBirds, write_folder
from birder.errors import ConfigError
from birder.networks import create_network
from birder.objectives.configs import Data2VecConfig, MAEConfig, MMCRConfig
from birder.objectives.methods import create_objective
from birder.recipes.cards import vit_l16_mim, vit_parallel_data2vec
from birder.recipes.chain import Stage, run_chain, write_chain
from birder.signature import rgb_stats
from birder.training.recipe import Optim, Recipe, Run, read_recipe

Chain = Callable[..., list[Stage]]


def stages_of(chain: Chain) -> list[Stage]:
    names = inspect.signature(chain).parameters
    return chain(**{name: name for name in ("data", "world", "region", "val") if name in names})


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_every_stage_fits_its_network(chain: Chain) -> None:
    stages = stages_of(chain)
    name = stages[0].recipe.network
    assert name is not None
    for number, stage in enumerate(stages):
        recipe = stage.recipe
        assert (recipe.network is None) == (number > 0), "only the first names the network, the others start from it"
        with torch.device("meta"):
            network = create_network(
                name, 10 if recipe.objective.labelled else 0, size=recipe.size, **recipe.network_options
            )
            if recipe.freeze == "network":
                network.freeze()
            create_objective(recipe.objective, network, rgb_stats=rgb_stats("imagenet"))
        assert stage.purpose.endswith(".")
        assert "hours" in stage.cost


def test_the_last_stage_has_the_size_and_the_species_of_the_card(shared: Path) -> None:
    for chain, card in (
        ("convnext_v2_tiny_intermediate", "convnext_v2_tiny_intermediate-il-common"),
        ("pvt_v2_b2_mmcr", "pvt_v2_b2_mmcr-il-all"),
        ("regnet_y_8g_intermediate", "regnet_y_8g_intermediate-eu-common"),
        ("vit_l16_mim", "vit_l16_mim-eu-common"),
        ("vit_parallel_data2vec", "vit_parallel_s16_18x2_ls_avg_data2vec-intermediate-arabian-peninsula"),
    ):
        text = (shared / "spec" / "cards" / f"{card}.md").read_text(encoding="utf-8")
        height, width = stages_of(CHAINS[chain])[-1].recipe.size or (0, 0)
        assert f"Input image size: {height} x {width}" in text
        said = (CHAINS[chain].__doc__ or "").splitlines()[0]
        assert any(word.strip("(),.") in said for word in text.split() if f"({word.strip('(')} classes" in text)


def test_what_published_networks_did_otherwise_is_asked_for_by_name() -> None:
    assert vit_l16_mim("a", "b")[0].recipe.objective == MAEConfig()
    assert vit_l16_mim("a", "b", as_published=True)[0].recipe.objective == MAEConfig(normalized_targets=False)
    assert vit_parallel_data2vec("a", "b", "c")[0].recipe.objective == Data2VecConfig()
    published = vit_parallel_data2vec("a", "b", "c", as_published=True)
    assert published[0].recipe.objective == Data2VecConfig(loss_on="visible")


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_stages_are_written_as_recipes_that_follow_each_other(chain: Chain, tmp_path: Path) -> None:
    stages = stages_of(chain)
    commands = write_chain(stages, tmp_path)
    assert len(commands) == len(stages)
    start = None
    for stage, command in zip(stages, commands, strict=True):
        assert read_recipe(tmp_path / f"{stage.name}.toml") == replace(stage.recipe, start=start)
        model = "best" if stage.recipe.objective.labelled else "last"
        start = str(tmp_path / stage.name / f"{model}.safetensors")
        assert f"--recipe {tmp_path / stage.name}.toml --out {tmp_path / stage.name}" in command


def test_a_chain_trains_each_stage_from_the_one_before(tmp_path: Path) -> None:
    write_folder(DrawnBirds(families=2, species=2, size=(48, 48)), tmp_path / "birds", 6)
    data = str(tmp_path / "birds")
    run = Run(device="cpu", dtype="float32", threads=1, workers=0)
    first = Recipe(
        data=data,
        network="convnext_v2_atto",
        network_options={"in_channels": (8, 8, 8, 8), "num_layers": (1, 1, 1, 1)},
        size=(32, 32),
        epochs=1,
        batch_size=4,
        objective=MMCRConfig(projector=(8,)),
        run=run,
    )
    still = Recipe(data=data, epochs=1, batch_size=4, freeze="network", optim=Optim(lr=0.01), run=run)
    stages = [Stage(name="mmcr", purpose="", recipe=first), Stage(name="probe", purpose="", recipe=still)]
    pretrained, probed = run_chain(stages, tmp_path / "chain")
    from birder.model_file import load_model

    before, after = (load_model(fitted.model)[0].state_dict() for fitted in (pretrained, probed))
    assert "classifier.weight" in after
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [one.model for one in run_chain(stages, tmp_path / "chain")] == [pretrained.model, probed.model]


def test_the_command_lists_chains_and_writes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["recipes"], result_action="return_value")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(CHAINS)
    app(["recipes", "vit_l16_mim", "--out", str(tmp_path), "--as-published"], result_action="return_value")
    out = capsys.readouterr().out
    assert "fine-tuning: All of the network" in out
    assert out.splitlines()[-3:][0] == f"birder pretrain mae --recipe {tmp_path / 'mae'}.toml --out {tmp_path / 'mae'}"
    assert read_recipe(tmp_path / "mae.toml").objective == MAEConfig(normalized_targets=False)


def test_what_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="vit_l16_min: no such chain; did you mean vit_l16_mim"):
        app(["recipes", "vit_l16_min"], result_action="return_value", exit_on_error=False)
    with pytest.raises(ConfigError, match="was trained as its paper says"):
        app(["recipes", "pvt_v2_b2_mmcr", "--as-published"], result_action="return_value", exit_on_error=False)


def test_recipes_that_are_there_are_not_replaced(tmp_path: Path) -> None:
    stages = vit_l16_mim("a", "b")
    folder = tmp_path / "my chain"
    commands = write_chain(stages, folder)
    assert shlex.split(commands[0])[4] == str(folder / "mae.toml")
    (folder / "mae.toml").write_text("epochs = 7")
    with pytest.raises(ConfigError, match=r"mae\.toml is there already"):
        write_chain(stages, folder)
    assert (folder / "mae.toml").read_text() == "epochs = 7"


def test_pictures_that_a_chain_has_no_use_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="--data: convnext_v2_tiny_intermediate has no use for it"):
        app(
            ["recipes", "convnext_v2_tiny_intermediate", "--data", "x"],
            result_action="return_value",
            exit_on_error=False,
        )

"""Starts that hold what no run can begin with."""

from pathlib import Path

import pytest
import torch

from birder.data.drawn import DrawnBirds, write_folder
from birder.errors import ModelFileError
from birder.model_file import save_model
from birder.signature import rgb_stats
from birder.testing.objectives import small_network
from birder.training.fit import fit
from birder.training.recipe import Recipe, Run


@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_written(strict: bool, tmp_path: Path) -> None:
    """And not at step 0, with advice about the learning rate."""
    write_folder(DrawnBirds(families=2, species=2, size=(40, 40)), tmp_path / "birds", 2)
    network = small_network(2)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    start = tmp_path / "start.safetensors"
    save_model(start, network, class_to_idx={"a": 0, "b": 1}, rgb_stats=rgb_stats("imagenet"))
    run = Run(device="cpu", dtype="float32", threads=1, workers=0)
    recipe = Recipe(data=str(tmp_path / "birds"), start=str(start), start_strict=strict, epochs=1, run=run)
    with pytest.raises(ModelFileError, match=r"start\.safetensors: stem\.0\.weight has values that are infinite or no"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()

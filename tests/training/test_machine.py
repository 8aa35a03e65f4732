"""What a recipe leaves open is decided visibly, and what was set stays."""

from birder import device
from birder.cores import available_cores
from birder.training import machine
from birder.training.machine import same_run
from birder.training.recipe import Recipe, Run, Schedule


def resolve(recipe):
    return machine.resolve(recipe, machine.training_device(recipe.run))


def test_all_that_is_open_is_decided():
    recipe = resolve(Recipe(data="x", epochs=20))
    assert recipe.run.device in ("cpu", "cuda", "mps")
    assert recipe.run.dtype in ("float32", "bfloat16")
    assert recipe.run.threads == available_cores() > 0
    assert recipe.schedule.warmup_epochs == 2.0
    assert resolve(Recipe(data="x", epochs=500)).schedule.warmup_epochs == 5.0
    assert resolve(recipe) == recipe


def test_what_was_set_stays():
    run = Run(device="cpu", dtype="float32", threads=1)
    recipe = resolve(Recipe(data="x", run=run, schedule=Schedule(warmup_epochs=0.0)))
    assert recipe.run == run
    assert recipe.schedule.warmup_epochs == 0.0


def test_a_run_is_the_same_on_another_machine_but_not_with_another_seed():
    recipe = Recipe(data="x")
    assert same_run(recipe, Recipe(data="x", run=Run(threads=8, workers=3, dtype="float32", device="meta")))
    assert not same_run(recipe, Recipe(data="x", run=Run(seed=1)))
    assert not same_run(recipe, Recipe(data="x", epochs=7))


def test_bfloat16_is_not_taken_where_it_is_imitated(monkeypatch):
    monkeypatch.setattr(device, "processor", lambda: ("some processor", "avx2 avx512f"))
    assert resolve(Recipe(data="x", run=Run(device="cpu"))).run.dtype == "float32"
    monkeypatch.setattr(device, "processor", lambda: ("some processor", "avx2 avx512_bf16"))
    assert resolve(Recipe(data="x", run=Run(device="cpu"))).run.dtype == "bfloat16"

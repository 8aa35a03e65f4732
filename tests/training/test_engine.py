"""The step: it moves what it should, as it should, and can be interrupted."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from birder.errors import NotFinite
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.training.engine import Engine
from birder.training.recipe import Average, Optim, Recipe, Run, Schedule

TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1), "size": (32, 32)}


def tiny(num_classes=4, **options):
    torch.manual_seed(11)
    return create_network("convnext_v2_atto", num_classes, **TINY, **options)


def engine_for(
    name="adamw", *, lr=3e-3, steps=40, clip=5.0, dtype="float32", average=0.0, mixup=0.2, seed=0, **options
):
    """One epoch of so many steps."""
    objective = Classification(tiny(**options), ClassificationConfig(mixup=mixup, mix_probability=0.5))
    recipe = Recipe(
        data="",
        epochs=1,
        optim=Optim(name=name, lr=lr, clip=clip),
        schedule=Schedule(warmup_epochs=2 / steps),
        average=Average(decay=average),
        run=Run(dtype=dtype, seed=seed),
    )
    return Engine(objective, recipe, steps_per_epoch=steps)


def a_batch(seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (size,), generator=generator)
    images = torch.randn(size, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch(images=images, labels=labels)


NAMES = {"adamw": 3e-3, "muon": 3e-3, "sgd": 0.1}


@pytest.mark.parametrize(("name", "lr"), NAMES.items())
def test_loss_falls_on_a_fixed_batch(name, lr):
    engine, batch = engine_for(name, lr=lr), a_batch()
    losses = [engine.train_step([batch])["loss"].item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_resumed_run_equals_unbroken_run(name):
    batches = [a_batch(seed) for seed in range(6)]
    engine = engine_for(name, drop_path_rate=0.3, average=0.9)
    for batch in batches[:3]:
        engine.train_step([batch])
    saved = deepcopy(engine.state_dict())
    unbroken = [engine.train_step([batch])["loss"].item() for batch in batches[3:]]

    fresh = engine_for(name, drop_path_rate=0.3, average=0.9)
    torch.rand(7)
    fresh.load_state_dict(saved)
    resumed = [fresh.train_step([batch])["loss"].item() for batch in batches[3:]]
    assert resumed == unbroken
    for name, tensor in engine.objective.state_dict().items():
        assert torch.equal(tensor, fresh.objective.state_dict()[name])
    for name, tensor in engine.average.state_dict().items():
        assert torch.equal(tensor, fresh.average.state_dict()[name])


def test_the_schedule_reaches_every_optimizer():
    engine = engine_for("muon", lr=1e-3, steps=10)
    rates = []
    for _ in range(10):
        engine.train_step([a_batch()])
        rates.append({group["lr"] for optimizer in engine.optimizers for group in optimizer.param_groups})
    assert all(len(rate) == 1 for rate in rates)
    assert [min(rate) for rate in rates][:2] == pytest.approx([5e-4, 1e-3])
    assert min(rates[-1]) < 1e-4


def test_a_gradient_too_long_is_shortened():
    def movement(clip):
        engine = engine_for("sgd", lr=1.0, clip=clip)
        engine.optimizers[0].param_groups[0]["weight_decay"] = 0.0
        before = deepcopy(engine.objective.state_dict())
        norm = (
            engine.train_step([a_batch()])["gradient_norm"].item() if clip else engine.train_step([a_batch()]) and 0.0
        )
        after = engine.objective.state_dict()
        moved = sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5
        return norm, moved

    norm, moved = movement(clip=1e-3)
    assert norm > 1e-3
    assert moved < 0.01 * movement(clip=0.0)[1]


def test_a_loss_that_is_no_number_stops_before_the_weights_move():
    engine = engine_for()
    before = deepcopy(engine.objective.state_dict())
    broken = a_batch()
    broken.images[0] = float("nan")
    with pytest.raises(NotFinite, match=r"loss is nan and its gradient nan at step 0 of 40: try a lower optim\.lr"):
        engine.train_step([broken])
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())
    assert engine.step == 0


def test_a_gradient_that_is_no_number_stops_before_the_weights_move():
    engine = engine_for(clip=0.0)
    before = deepcopy(engine.objective.state_dict())
    engine.objective.network.classifier.register_full_backward_hook(
        lambda module, to_input, to_output: (to_input[0] * float("inf"),)
    )
    with pytest.raises(NotFinite, match=r"gradient (nan|inf) at step 0"):
        engine.train_step([a_batch()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())


def test_bfloat16_computes_almost_the_same():
    exact = engine_for().train_step([a_batch()])["loss"].item()
    assert engine_for(dtype="bfloat16").train_step([a_batch()])["loss"].item() == pytest.approx(exact, rel=0.02)


def test_the_golden_losses_are_reproduced(root):
    """Twenty steps, float32, one thread: a change of the engine or the objective must not change them."""
    engine = engine_for(lr=1e-3, steps=20)
    generator = np.random.default_rng(5)  # as torch's versions do not start weights from the same numbers
    for parameter in engine.objective.parameters():
        start = 1.0 if parameter.dim() == 1 else 0.0
        parameter.data = torch.from_numpy(start + 0.05 * generator.standard_normal(parameter.shape, np.float32))
    losses = [engine.train_step([a_batch(seed)])["loss"].item() for seed in range(20)]
    recorded = [float(line) for line in (root / "tests/golden/losses/classification.txt").read_text().split()]
    assert losses == pytest.approx(recorded, rel=1e-5)


def gradients(engine):
    return {name: weight.grad.clone() for name, weight in engine.objective.named_parameters()}


def cut(batch, *lengths):
    pieces = zip(batch.images.split(lengths), batch.labels.split(lengths), strict=True)
    return [Batch(images=images, labels=labels) for images, labels in pieces]


@pytest.mark.parametrize("lengths", [(8, 8, 8, 8), (1, 30, 1), (20, 12)])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(lengths):
    whole, parts = engine_for(mixup=0.0), engine_for(mixup=0.0)
    for engine in (whole, parts):
        engine.objective.double()
    batch = a_batch(size=32)
    batch = Batch(images=batch.images.double(), labels=batch.labels)
    loss = whole.train_step([batch])["loss"]
    assert parts.train_step(cut(batch, *lengths))["loss"].item() == pytest.approx(loss.item(), rel=1e-6)  # float32
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-5, atol=1e-7)


def test_a_batch_of_four_parts_in_float32():
    whole, parts = engine_for(mixup=0.0, clip=0.0), engine_for(mixup=0.0, clip=0.0)
    batch = a_batch(size=32)
    whole.train_step([batch])
    parts.train_step(cut(batch, 8, 8, 8, 8))
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-4, atol=1e-6)


def test_pictures_of_other_processes_count_in_the_mean():
    """Half of the pictures are elsewhere, so these have half of the gradient's weight."""
    alone, one_of_two = engine_for(mixup=0.0, clip=0.0), engine_for(mixup=0.0, clip=0.0)
    alone.train_step([a_batch()])
    one_of_two.train_step([a_batch()], pictures=16)
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(gradients(one_of_two)[name], gradient / 2, rtol=1e-5, atol=1e-9)


def test_a_blank_part_counts_nothing():
    plain, with_blank = engine_for(mixup=0.0), engine_for(mixup=0.0)
    blank = Batch(images=torch.zeros(2, 3, 32, 32), labels=torch.zeros(2, dtype=torch.int64), blank=True)
    loss = plain.train_step([a_batch()])["loss"]
    assert with_blank.train_step([a_batch(), blank])["loss"] == loss
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(with_blank)[name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize("clip", [0.0, 5.0])
def test_what_overflows_in_one_optimizer_moves_none(clip):
    """With float16 and Muon; the scale is lowered, and nothing else happens."""
    engine = engine_for("muon", dtype="float16", mixup=0.0, clip=clip)
    before = deepcopy(engine.objective.state_dict())
    matrix = engine.optimizers[0].param_groups[0]["params"][0]
    matrix.register_hook(lambda gradient: gradient * float("nan"))
    scale = engine.scaler.get_scale()
    assert "gradient_norm" not in engine.train_step([a_batch()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())
    assert engine.scaler.get_scale() == scale / 2


def test_moments_lie_in_memory_as_the_weights_do():
    """A run goes on with channels last: fused optimisers go through memory in order."""
    plain = engine_for()
    plain.train_step([a_batch()])
    saved = deepcopy(plain.state_dict())
    last = engine_for()
    last.objective.network.to(memory_format=torch.channels_last)
    last.load_state_dict(saved)
    for engine in (plain, last):
        engine.train_step([a_batch(1)])
    for name, tensor in plain.objective.state_dict().items():
        torch.testing.assert_close(last.objective.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_in_another_type():
    plain = engine_for()
    plain.train_step([a_batch()])
    half = engine_for(dtype="float16")
    half.load_state_dict(deepcopy(plain.state_dict()))
    assert half.step == 1


def test_random_numbers_of_a_step_depend_on_seed_and_step_alone():
    first, second, other = (engine_for(drop_path_rate=0.5, seed=seed) for seed in (3, 3, 4))
    torch.rand(5)
    losses = [engine.train_step([a_batch()])["loss"].item() for engine in (first, second, other)]
    assert losses[0] == losses[1] != losses[2]
    first.skip_step()
    second.skip_step()
    torch.rand(3)
    assert first.train_step([a_batch()])["loss"] == second.train_step([a_batch()])["loss"]


def test_the_average_follows_every_step():
    engine = engine_for(average=0.5)
    expected = {name: tensor.clone() for name, tensor in engine.objective.network.state_dict().items()}
    for _ in range(3):
        engine.train_step([a_batch()])
        for name, tensor in engine.objective.network.state_dict().items():
            expected[name] = (expected[name] + tensor) / 2
    with engine.averaged():
        for name, tensor in engine.objective.network.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
    assert not torch.equal(engine.objective.network.classifier.weight, expected["classifier.weight"])


def test_float16_leaves_out_steps_whose_gradients_are_too_large():
    engine = engine_for(dtype="float16", mixup=0.0)
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    before = deepcopy(engine.objective.state_dict())
    engine.train_step([a_batch()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())
    assert engine.scaler.get_scale() == 2.0**29
    losses = [engine.train_step([a_batch()])["loss"].item() for _ in range(39)]
    assert sum(losses[-5:]) < 0.95 * losses[0] * 5

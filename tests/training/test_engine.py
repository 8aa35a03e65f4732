"""The step: it moves what it should, as it should, and can be interrupted."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from birder.errors import ConfigError, NotFinite
from birder.networks import create_network
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.training.engine import Engine
from birder.training.optim import make_optimizers, parameter_groups
from birder.training.recipe import Optim

TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1), "size": (32, 32)}


def tiny(num_classes=4, **options):
    torch.manual_seed(11)
    return create_network("convnext_v2_atto", num_classes, **TINY, **options)


def engine_for(name="adamw", *, lr=3e-3, steps=40, clip=5.0, dtype=torch.float32, **options):
    objective = Classification(tiny(**options), ClassificationConfig(mixup=0.2, mix_probability=0.5))
    options = Optim(name=name, lr=lr, clip=clip)
    return Engine(objective, options, steps=steps, warmup=2, final_lr=0.0, dtype=dtype)


def a_batch(seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (size,), generator=generator)
    images = torch.randn(size, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch(images=images, labels=labels)


NAMES = {"adamw": 3e-3, "muon": 3e-3, "sgd": 0.1}


@pytest.mark.parametrize(("name", "lr"), NAMES.items())
def test_loss_falls_on_a_fixed_batch(name, lr):
    engine, batch = engine_for(name, lr=lr), a_batch()
    losses = [engine.train_step(batch)["loss"].item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_resumed_run_equals_unbroken_run(name):
    batches = [a_batch(seed) for seed in range(6)]
    engine = engine_for(name, drop_path_rate=0.3)
    for batch in batches[:3]:
        engine.train_step(batch)
    saved = deepcopy(engine.state_dict())
    unbroken = [engine.train_step(batch)["loss"].item() for batch in batches[3:]]

    fresh = engine_for(name, drop_path_rate=0.3)
    torch.rand(7)
    fresh.load_state_dict(saved)
    resumed = [fresh.train_step(batch)["loss"].item() for batch in batches[3:]]
    assert resumed == unbroken
    for name, tensor in engine.objective.state_dict().items():
        assert torch.equal(tensor, fresh.objective.state_dict()[name])


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_moved_by_exactly_one_optimizer(name):
    network = tiny()
    optimizers = make_optimizers(network, network, Optim(name=name))
    held = [id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in network.parameters())


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    network = tiny()
    muon, adamw = make_optimizers(network, network, Optim(name="muon"))
    names = {id(weight): name for name, weight in network.named_parameters()}
    taken = {names[id(weight)] for weight in muon.param_groups[0]["params"]}
    assert taken == {name for name in names.values() if name.endswith(("block.3.weight", "block.6.weight"))}
    assert isinstance(adamw, torch.optim.AdamW)


def test_muon_needs_matrices():
    network = tiny()
    network.body.requires_grad_(False)
    with pytest.raises(ConfigError, match="blocks of convnext_v2_atto train none; take adamw"):
        make_optimizers(network, network, Optim(name="muon"))


def test_frozen_weights_stay_and_are_held_by_none():
    network = tiny()
    network.stem.requires_grad_(False)
    network.body.stage1.requires_grad_(False)
    for name in NAMES:
        optimizers = make_optimizers(network, network, Optim(name=name))
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        held = {id(weight) for group in groups for weight in group["params"]}
        assert held == {id(weight) for weight in network.parameters() if weight.requires_grad}


def test_norms_biases_and_scales_do_not_decay():
    network = tiny()
    names = {id(weight): name for name, weight in network.named_parameters()}
    decaying, free = parameter_groups(list(network.parameters()), 0.05)
    assert decaying["weight_decay"] == 0.05
    assert free["weight_decay"] == 0.0
    free_names = {names[id(weight)] for weight in free["params"]}
    assert "body.stage1.0.block.5.gamma" in free_names
    assert "stem.1.weight" in free_names
    assert all(name.endswith("weight") for name in (names[id(weight)] for weight in decaying["params"]))
    assert len(decaying["params"]) + len(free["params"]) == len(names)


def test_the_optimizer_is_that_of_the_closed_form():
    """Two steps of AdamW on one number, by hand (Loshchilov and Hutter 2017, algorithm 2)."""
    weight = torch.nn.Linear(2, 2, bias=False)
    weight.weight.data.fill_(0.5)
    (optimizer,) = make_optimizers(weight, tiny(), Optim(lr=0.1, weight_decay=0.01))
    value, mean, square = 0.5, 0.0, 0.0
    for step, gradient in enumerate((0.2, -0.3), start=1):
        weight.weight.grad = torch.full((2, 2), gradient)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value -= 0.1 * 0.01 * value
        value -= 0.1 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert weight.weight[0, 0].item() == pytest.approx(value, abs=1e-6)


def test_the_schedule_reaches_every_optimizer():
    engine = engine_for("muon", lr=1e-3, steps=10)
    rates = []
    for _ in range(10):
        engine.train_step(a_batch())
        rates.append({group["lr"] for optimizer in engine.optimizers for group in optimizer.param_groups})
    assert all(len(rate) == 1 for rate in rates)
    assert [min(rate) for rate in rates][:2] == pytest.approx([5e-4, 1e-3])
    assert min(rates[-1]) < 1e-4


def test_a_gradient_too_long_is_shortened():
    def movement(clip):
        engine = engine_for("sgd", lr=1.0, clip=clip)
        engine.optimizers[0].param_groups[0]["weight_decay"] = 0.0
        before = deepcopy(engine.objective.state_dict())
        norm = engine.train_step(a_batch())["gradient_norm"].item() if clip else engine.train_step(a_batch()) and 0.0
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
        engine.train_step(broken)
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())
    assert engine.step == 0


def test_a_gradient_that_is_no_number_stops_before_the_weights_move():
    engine = engine_for(clip=0.0)
    before = deepcopy(engine.objective.state_dict())
    engine.objective.network.classifier.register_full_backward_hook(
        lambda module, to_input, to_output: (to_input[0] * float("inf"),)
    )
    with pytest.raises(NotFinite, match=r"gradient (nan|inf) at step 0"):
        engine.train_step(a_batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.objective.state_dict().items())


def test_bfloat16_computes_almost_the_same():
    exact = engine_for().train_step(a_batch())["loss"].item()
    assert engine_for(dtype=torch.bfloat16).train_step(a_batch())["loss"].item() == pytest.approx(exact, rel=0.02)


def test_the_golden_losses_are_reproduced(root):
    """Twenty steps, float32, one thread: a change of the engine or the objective must not change them."""
    engine = engine_for(lr=1e-3, steps=20)
    generator = np.random.default_rng(5)  # as torch's versions do not start weights from the same numbers
    for parameter in engine.objective.parameters():
        start = 1.0 if parameter.dim() == 1 else 0.0
        parameter.data = torch.from_numpy(start + 0.05 * generator.standard_normal(parameter.shape, np.float32))
    torch.manual_seed(1)
    losses = [engine.train_step(a_batch(seed))["loss"].item() for seed in range(20)]
    recorded = [float(line) for line in (root / "tests/golden/losses/classification.txt").read_text().split()]
    assert losses == pytest.approx(recorded, rel=1e-5)

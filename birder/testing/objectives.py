"""The promises that every objective keeps."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from birder.networks.base import Network, create_network
from birder.objectives.base import Batch, Objective
from birder.objectives.configs import Views
from birder.objectives.methods import create_objective, objectives
from birder.objectives.teacher import Teacher
from birder.signature import rgb_stats
from birder.testing.networks import BF16_TOLERANCE, NUM_CLASSES
from birder.testing.promise import check_promises, expect
from birder.training.groups import depths

IMAGES = 8
STEPS = 20


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What a promise is checked of."""

    make: Callable[[], Objective]
    batch: Batch

    def build(self, seed: int = 0) -> Objective:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().train()


def check_objective(
    objective: str | Callable[[], Objective],
    *,
    network: Callable[[], Network] | None = None,
    batch: Batch | None = None,
    **options: Any,
) -> None:
    """Check all that the engine takes for granted of an objective.

    Args:
        objective: Registered name, which is tried on a small network and with a small teacher; or a function that
            builds one, with new random weights each time, but for those of a teacher that is no part of its state.
        network: Builds the network to try an objective given by name on; None is ``small_network``.
        batch: Pictures of 2 or more; None are noise that fits the network, in the views that the objective wants.
        options: Of the objective, where it is given by name.

    Raises:
        BrokenPromise: The first promise that is not kept.
        UnknownName: No objective of that name.
        ConfigError: Options that do not fit.
    """
    if isinstance(objective, str):
        name, make = objective, _by_name(objective, network, options)
    else:
        name, make = "the objective", objective
        assert not options and network is None, "options and network go with a name"
    built = make()  # mistakes in the arguments are the caller's
    views = getattr(getattr(built, "config", None), "views", Views())
    subject = _Subject(make=make, batch=batch or labelled_pictures(built.network, views))
    check_promises(name, OBJECTIVE_PROMISES, subject)


def small_network(num_classes: int = NUM_CLASSES) -> Network:
    """A ConvNeXt v2 of 14,000 weights for pictures of 32 x 32."""
    return create_network(
        "convnext_v2_atto", num_classes, size=(32, 32), in_channels=(8, 8, 16, 24), num_layers=(1, 1, 1, 1)
    )


def small_vit(num_classes: int = 0) -> Network:
    """A ViT of 32,000 weights for pictures of 32 x 32, in patches of 4 x 4."""
    options: dict[str, Any] = {
        "patch_size": 4,
        "num_layers": 3,
        "num_heads": 2,
        "hidden_dim": 32,
        "mlp_dim": 64,
        "drop_path_rate": 0.0,
    }
    return create_network("vit_t16", num_classes, size=(32, 32), **options)


def labelled_pictures(network: Network, views: Views | None = None) -> Batch:
    """Noise in the shape that a network takes, in some views, and labels: 8 of each, the same in every call."""
    generator = torch.Generator().manual_seed(1)
    views = views or Views()
    labels = torch.arange(IMAGES) % max(network.num_classes, 1)

    def noise(number: int, *size: int) -> Tensor:
        return torch.randn(IMAGES, number, network.input_channels, *size, generator=generator)

    large = noise(views.large, *network.size)
    small = noise(views.small, views.small_size, views.small_size) if views.small else None
    return Batch(images=large if views.large > 1 else large[:, 0], labels=labels, small=small)


def _by_name(name: str, network: Callable[[], Network] | None, options: dict[str, Any]) -> Callable[[], Objective]:
    config = objectives[name][1](**options)
    classes = {f"class {label}": label for label in range(NUM_CLASSES)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        teacher = Teacher(network=small_network(), class_to_idx=classes, rgb_stats=rgb_stats("birder"))
        torch.nn.init.normal_(teacher.network.get_parameter("classifier.weight"))  # so that it has an opinion

    def make() -> Objective:
        return create_objective(
            config,
            network() if network else small_network(NUM_CLASSES if config.labelled else 0),
            class_counts=range(1, NUM_CLASSES + 1),
            class_to_idx=classes,
            rgb_stats=rgb_stats("imagenet"),
            teacher=teacher,
        )

    return make


def _losses(objective: Objective, batch: Batch, step: int = 0, seed: int | None = None) -> dict[str, Tensor]:
    """The losses of a step, with the same random numbers each time; or of another step with those of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step if seed is None else seed)
        return objective(batch, step / STEPS)


def _train(objective: Objective, batch: Batch, optimizer: Optimizer, steps: range, seed: int | None) -> list[float]:
    values = []
    for step in steps:
        optimizer.zero_grad()
        loss = _losses(objective, batch, step, seed)["loss"]
        loss.backward()
        optimizer.step()
        objective.after_step(step / STEPS)
        values.append(loss.item())
    return values


def _train_plainly(objective: Objective, batch: Batch, steps: range) -> list[float]:
    """Without momentum, so that nothing but the state of the objective goes from one step to the next."""
    return _train(objective, batch, SGD(_trained(objective).values(), lr=0.01), steps, None)


def _trained(objective: Objective) -> dict[str, Tensor]:
    return {name: weight for name, weight in objective.named_parameters() if weight.requires_grad}


def _expect_finite_gradients(objective: Objective) -> None:
    gradients = {name: weight.grad for name, weight in _trained(objective).items() if weight.grad is not None}
    wild = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    expect(not wild, f"they are not finite at {', '.join(wild)}")


def _expect_near(what: str, value: float, expected: float, tolerance: float) -> None:
    near = abs(value - expected) <= tolerance * max(abs(expected), 0.1)
    expect(near, f"{what} is {value:g}, not {expected:g}")


def _gives_losses(subject: _Subject) -> None:
    objective = subject.build()
    expect(any(module is objective.network for module in objective.children()), "network is no part of it")
    losses = _losses(objective, subject.batch)
    expect("loss" in losses, f"there is no loss among {', '.join(losses)}")
    for name, value in losses.items():
        expect(value.dim() == 0 and bool(value.isfinite()), f"{name} is no finite number: {value.tolist()}")


def _gradients(subject: _Subject) -> None:
    objective = subject.build()
    _losses(objective, subject.batch)["loss"].backward()
    trained = _trained(objective)
    unreached = [name for name, weight in trained.items() if weight.grad is None]
    if not objective.reaches_all:  # but all that is the objective's own, and the network down to its last block
        depth = depths(objective.network)
        behind = {weight for weight, place in depth.items() if place > len(objective.network.blocks())}
        unreached = [name for name in unreached if trained[name] not in behind]
    expect(not unreached, f"none reaches {', '.join(unreached)}")
    _expect_finite_gradients(objective)


def _student(subject: _Subject) -> None:
    objective = subject.build()
    names = {id(weight): name for name, weight in objective.named_parameters()}
    nodes, seen = [_losses(objective, subject.batch)["loss"].grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.extend(before for before, _ in node.next_functions)
        if hasattr(node, "variable"):  # where a gradient ends
            name = names.get(id(node.variable))
            expect(name is not None, f"some reach a tensor of shape {tuple(node.variable.shape)} that is no part of it")
            expect(not str(name).startswith("teacher"), f"some reach {name}")


def _falls(subject: _Subject) -> None:
    objective = subject.build()
    optimizer = Adam(_trained(objective).values(), lr=2e-3)
    values = _train(objective, subject.batch, optimizer, range(STEPS), seed=0)
    expect(values[-1] < values[0], f"it goes from {values[0]:g} to {values[-1]:g} in {STEPS} steps")


def _state(subject: _Subject) -> None:
    objective = subject.build()
    _train_plainly(objective, subject.batch, range(3))
    saved = copy.deepcopy(objective.state_dict())
    fresh = subject.build(seed=1234)
    fresh.load_state_dict(saved)
    unbroken, resumed = (_train_plainly(each, subject.batch, range(3, 6)) for each in (objective, fresh))
    expect(resumed == unbroken, f"the next losses are {resumed}, not {unbroken}")


def _copy(subject: _Subject) -> None:
    objective = subject.build()
    before = _losses(objective, subject.batch)["loss"].item()
    twin = copy.deepcopy(objective)
    same = _losses(twin, subject.batch)["loss"].item()
    expect(same == before, f"the loss of the copy is {same:g}, not {before:g}")
    _train_plainly(twin, subject.batch, range(3))
    after = _losses(objective, subject.batch)["loss"].item()
    expect(after == before, f"the loss, after the copy was trained, is {after:g}, not {before:g}")


def _half_precision(subject: _Subject) -> None:
    objective = subject.build()
    full = _losses(objective, subject.batch)["loss"].item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = _losses(objective, subject.batch)["loss"]
    _expect_near("the loss in bfloat16", loss.item(), full, BF16_TOLERANCE)
    loss.backward()
    _expect_finite_gradients(objective)


def _alone(subject: _Subject) -> None:
    objective = subject.build()
    if objective.compares:
        return
    small = subject.batch.small[:1] if subject.batch.small is not None else None
    batch = Batch(images=subject.batch.images[:1], labels=subject.batch.labels[:1], small=small)
    loss = _losses(objective, batch)["loss"]
    loss.backward()
    expect(math.isfinite(loss.item()), f"the loss is {loss.item()}")
    _expect_finite_gradients(objective)


def _evaluation(subject: _Subject) -> None:
    objective = subject.build().eval()
    first, second = (objective(subject.batch, 0.0)["loss"].item() for _ in range(2))
    expect(first == second, f"the loss is {first:g}, and then {second:g}")


def _moves(subject: _Subject) -> None:
    single = _losses(subject.build(), subject.batch)["loss"].item()
    small = subject.batch.small.double() if subject.batch.small is not None else None
    batch = replace(subject.batch, images=subject.batch.images.double(), small=small)
    double = _losses(subject.build().double(), batch)["loss"].item()
    _expect_near("the loss in float64", double, single, 1e-3)


def _compiles(subject: _Subject) -> None:
    objective = subject.build()
    plain = _losses(objective, subject.batch)["loss"]
    plain.backward()
    before = {name: weight.grad for name, weight in _trained(objective).items() if weight.grad is not None}
    torch.compiler.reset()
    compiled = subject.build()
    compiled.compile(backend="aot_eager")  # all of the way but the last part, which takes minutes
    loss = _losses(compiled, subject.batch)["loss"]
    loss.backward()
    _expect_near("the loss of the compiled objective", loss.item(), plain.item(), 1e-4)
    after = {name for name, weight in _trained(compiled).items() if weight.grad is not None}
    expect(after == before.keys(), f"compiled, gradients reach other weights: {', '.join(after ^ before.keys())}")


OBJECTIVE_PROMISES: dict[str, Callable[[_Subject], None]] = {
    "it gives finite losses": _gives_losses,
    "gradients reach all that is trained": _gradients,
    "gradients reach nothing else": _student,
    "the loss falls on a fixed batch": _falls,
    "it goes on from its state": _state,
    "it can be copied": _copy,
    "bfloat16 is close to float32": _half_precision,
    "it learns from one picture": _alone,
    "evaluation gives the same each time": _evaluation,
    "it can be compiled": _compiles,
    "it is moved as a whole": _moves,
}
"""Every promise in words, and the function that checks it; the keys are the beginnings of the messages."""

"""Optimisers by name against torch's used by hand; LARS and LAMB against formulas in float64 and against timm."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from birder.errors import ConfigError
from birder.networks import create_network
from birder.training.groups import kinds
from birder.training.lamb import LAMB
from birder.training.lars import LARS
from birder.training.optim import make_optimizers, scaled_lr
from birder.training.recipe import Optim

TINY = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1), "size": (32, 32)}
NAMES = ("adamw", "adam", "nadam", "rmsprop", "sgd", "lamb", "lars", "muon")


def tiny(**options):
    torch.manual_seed(11)
    return create_network("convnext_v2_atto", 4, **TINY, **options)


def some_weights(dtype=torch.float64):
    """Two matrices and a vector."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, 6), (3, 2, 3, 3), (5,))
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def gradients(weights, step):
    generator = torch.Generator().manual_seed(100 + step)
    for weight in weights:
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = (weight.detach().double() + noise).to(weight.dtype)


def after(optimizers, weights, steps=20, *, change_lr=False):
    """The weights after some steps."""
    for step in range(steps):
        gradients(weights, step)
        for optimizer in optimizers:
            for group in optimizer.param_groups if change_lr else ():
                group["lr"] *= 0.9
            optimizer.step()
    return [weight.detach().clone() for weight in weights]


def groups_by_hand(network, weight_decay, vector_decay):
    """Without the code under test: names of matrices end so in this network."""
    ends = ("stem.0.weight", "block.0.weight", "block.3.weight", "block.6.weight", "0.1.weight", "classifier.weight")
    matrices = [weight for name, weight in network.named_parameters() if name.endswith(ends)]
    vectors = [weight for name, weight in network.named_parameters() if not name.endswith(ends)]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": vector_decay},
    ]


BY_HAND = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-5),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-5),
    "nadam": lambda groups: torch.optim.NAdam(
        groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-5, decoupled_weight_decay=True
    ),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=1e-2, alpha=0.95, momentum=0.8, eps=1e-5),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.8, nesterov=True),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_optimizer_is_torchs(name):
    ours, theirs = tiny(), tiny()
    options = {} if name == "sgd" else {"beta2": 0.95, "eps": 1e-5}
    optimizers = make_optimizers(
        ours, ours, Optim(name=name, lr=1e-2, weight_decay=0.1, vector_decay=0.02, momentum=0.8, **options)
    )
    found = after(optimizers, list(ours.parameters()), 5)
    expected = after([BY_HAND[name](groups_by_hand(theirs, 0.1, 0.02))], list(theirs.parameters()), 5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.0, True)])
def test_sgd_without_nesterovs_form(momentum, nesterov):
    ours, theirs = tiny(), tiny()
    options = Optim(name="sgd", lr=0.01, momentum=momentum, nesterov=nesterov, weight_decay=0.0)
    found = after(make_optimizers(ours, ours, options), list(ours.parameters()), 3)
    plain = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=momentum)
    torch.testing.assert_close(found, after([plain], list(theirs.parameters()), 3))


def test_muon_is_torchs_for_the_matrices_of_the_blocks():
    ours, theirs = tiny(), tiny()
    found = after(
        make_optimizers(ours, ours, Optim(name="muon", lr=1e-2, weight_decay=0.1)), list(ours.parameters()), 3
    )
    matrices, vectors = groups_by_hand(theirs, 0.1, 0.0)
    inner = [weight for block in theirs.blocks() for weight in block.parameters() if weight.dim() == 2]
    held = {id(weight) for weight in inner}
    matrices["params"] = [weight for weight in matrices["params"] if id(weight) not in held]
    by_hand = [
        torch.optim.Muon(inner, lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([matrices, vectors], lr=1e-2),
    ]
    torch.testing.assert_close(found, after(by_hand, list(theirs.parameters()), 3))


def test_adamw_is_that_of_the_closed_form():
    """Two steps on one number, by hand (Loshchilov and Hutter 2017, algorithm 2)."""
    network = tiny()
    weight = network.classifier.weight
    weight.data.fill_(0.5)
    (optimizer,) = make_optimizers(network.classifier, network, Optim(lr=0.1, weight_decay=0.01))
    value, mean, square = 0.5, 0.0, 0.0
    for step, gradient in enumerate((0.2, -0.3), start=1):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        value -= 0.1 * 0.01 * value
        value -= 0.1 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert weight[0, 0].item() == pytest.approx(value, abs=1e-6)


def slow_lamb(weights, steps, *, lr, betas, decay, eps, adapt):
    """Algorithm 2 of You et al. 2019, one tensor after the other."""
    results = []
    for weight in weights:
        x = weight.detach().double().clone()
        means, squares = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(steps):
            holder = [nn.Parameter(other.detach().double().clone()) for other in weights]
            place = next(i for i, other in enumerate(weights) if other is weight)
            holder[place].data.copy_(x)
            gradients(holder, step)
            gradient = holder[place].grad
            means = betas[0] * means + (1 - betas[0]) * gradient
            squares = betas[1] * squares + (1 - betas[1]) * gradient**2
            unbiased_means = means / (1 - betas[0] ** (step + 1))
            unbiased_squares = squares / (1 - betas[1] ** (step + 1))
            move = unbiased_means / (unbiased_squares.sqrt() + eps) + decay * x
            x = x - lr * (x.norm() / move.norm() if adapt else 1.0) * move
        results.append(x)
    return results


def slow_lars(weights, steps, *, lr, momentum, decay, trust, adapt):
    """Algorithm 1 of You et al. 2017, one tensor after the other, at a constant learning rate."""
    results = []
    for place, weight in enumerate(weights):
        x = weight.detach().double().clone()
        velocity = torch.zeros_like(x)
        for step in range(steps):
            holder = [nn.Parameter(other.detach().double().clone()) for other in weights]
            holder[place].data.copy_(x)
            gradients(holder, step)
            gradient = holder[place].grad
            local = trust * x.norm() / (gradient.norm() + decay * x.norm()) if adapt else 1.0
            velocity = momentum * velocity + lr * local * (gradient + decay * x)
            x = x - velocity
        results.append(x)
    return results


@pytest.mark.parametrize("adapt", [True, False])
def test_lamb_is_the_formula(adapt):
    expected = slow_lamb(some_weights(), 20, lr=0.02, betas=(0.8, 0.95), decay=0.1, eps=1e-6, adapt=adapt)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        weights = some_weights(dtype)
        optimizer = LAMB(weights, lr=0.02, betas=(0.8, 0.95), weight_decay=0.1, adapt=adapt)
        for found, exact in zip(after([optimizer], weights), expected, strict=True):
            torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("adapt", [True, False])
def test_lars_is_the_formula(adapt):
    lr, trust = (2.0, 0.01) if adapt else (0.02, 0.01)
    expected = slow_lars(some_weights(), 20, lr=lr, momentum=0.9, decay=0.1, trust=trust, adapt=adapt)
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 2e-5)):  # the paper adds no eps
        weights = some_weights(dtype)
        optimizer = LARS(weights, lr=lr, momentum=0.9, weight_decay=0.1, trust=trust, adapt=adapt)
        for found, exact in zip(after([optimizer], weights), expected, strict=True):
            torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


def test_without_lengths_lamb_is_adamw_and_lars_is_sgd():
    pairs = [
        (LAMB, torch.optim.AdamW, {"weight_decay": 0.1, "eps": 1e-8}),
        (LARS, torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.9}),
    ]
    for ours, theirs, options in pairs:
        first, second = some_weights(), some_weights()
        found = after([ours(first, lr=0.01, adapt=False, **options)], first, change_lr=True)
        torch.testing.assert_close(found, after([theirs(second, lr=0.01, **options)], second, change_lr=True))


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_lamb_and_lars_are_those_of_timm(name):
    """But that LAMB of timm shortens long gradients itself, which is off here, as our engine does it."""
    pytest.importorskip("timm")
    from timm.optim import Lamb, Lars

    first, second = some_weights(), some_weights()
    parts = [
        [
            {"params": weights[:2], "weight_decay": 0.1, "adapt": True},
            {"params": weights[2:], "weight_decay": 0.0, "adapt": False},
        ]
        for weights in (first, second)
    ]
    theirs = [{name: value for name, value in group.items() if name != "adapt"} for group in parts[1]]
    if name == "lamb":
        pair = LAMB(parts[0], lr=0.02, eps=0.1), Lamb(theirs, lr=0.02, eps=0.1, max_grad_norm=None)
    else:
        pair = LARS(parts[0], lr=1.0, eps=0.1), Lars(theirs, lr=1.0, momentum=0.9, eps=0.1)
    found = after([pair[0]], first, change_lr=True)
    torch.testing.assert_close(found, after([pair[1]], second, change_lr=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [LAMB, LARS])
def test_weights_that_start_at_zero_can_leave_it(make):
    weight = nn.Parameter(torch.zeros(3, 3))
    still = nn.Parameter(torch.ones(3, 3))
    unused = nn.Parameter(torch.ones(2))
    weight.grad, still.grad = torch.ones(3, 3), torch.zeros(3, 3)
    make([weight, still, unused], lr=0.5, weight_decay=0.0).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), -0.5), rtol=1e-5, atol=0.0)
    assert torch.equal(still.detach(), torch.ones(3, 3))
    assert torch.equal(unused.detach(), torch.ones(2))


def test_without_a_gradient_lars_decays_as_sgd_does():
    weight = nn.Parameter(torch.ones(3, 3))
    weight.grad = torch.zeros(3, 3)
    LARS([weight], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), 0.95))


@pytest.mark.parametrize("make", [LAMB, LARS])
def test_a_closure_is_called_with_gradients(make):
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = make([weight], lr=0.1)

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert float(weight.detach().max()) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_optimizer_equals_an_unbroken_one(name, tmp_path):
    options = Optim(name=name, lr=0.01, layer_decay=0.7)
    network = tiny()
    optimizers = make_optimizers(network, network, options)
    after(optimizers, list(network.parameters()), 3)
    twin = deepcopy(network)
    resumed = make_optimizers(twin, twin, options)
    torch.save([optimizer.state_dict() for optimizer in optimizers], tmp_path / "state.pt")
    for optimizer, state in zip(resumed, torch.load(tmp_path / "state.pt"), strict=True):
        optimizer.load_state_dict(state)
    unbroken = after(optimizers, list(network.parameters()), 3)
    assert all(map(torch.equal, after(resumed, list(twin.parameters()), 3), unbroken))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen", [None, 1])
def test_every_trained_weight_is_moved_by_exactly_one_optimizer(name, frozen):
    network = tiny()
    if frozen is not None:
        network.freeze(frozen)
    optimizers = make_optimizers(network, network, Optim(name=name, layer_decay=0.9))
    held = [id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in network.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_their_share_of_the_learning_rate_and_their_decay(name):
    network = tiny()
    options = Optim(name=name, lr=0.01, layer_decay=0.5, weight_decay=0.3, vector_decay=0.2)
    for optimizer in make_optimizers(network, network, options):
        for group in optimizer.param_groups:
            assert group["lr"] == 0.01 * group["scale"]
            assert group["weight_decay"] == {"matrix": 0.3, "vector": 0.2}[group["kind"]]
            first = network.stem[0].weight if group["kind"] == "matrix" else network.stem[0].bias
            assert any(weight is first for weight in group["params"]) == (group["scale"] == 0.5**5)


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_only_the_lengths_of_matrices_count(name):
    network = create_network("vit_s16", 3, size=(32, 32), num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32)
    (optimizer,) = make_optimizers(network, network, Optim(name=name, weight_decay=0.0))
    kind = kinds(network)
    for group in optimizer.param_groups:
        assert {kind[weight] == "matrix" for weight in group["params"]} == {group["adapt"]}


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    network = tiny()
    muon, adamw = make_optimizers(network, network, Optim(name="muon", layer_decay=0.5))
    names = {id(weight): name for name, weight in network.named_parameters()}
    taken = {names[id(weight)] for group in muon.param_groups for weight in group["params"]}
    assert taken == {name for name in names.values() if name.endswith(("block.3.weight", "block.6.weight"))}
    assert [group["scale"] for group in muon.param_groups] == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert isinstance(adamw, torch.optim.AdamW)
    (alone,) = make_optimizers(nn.ModuleList(network.body.stage1[0].block[3:4]), _frozen(network), Optim(name="muon"))
    assert isinstance(alone, torch.optim.Muon)


def _frozen(network):
    """All biases are frozen, so that a layer has nothing but its matrix."""
    for name, weight in network.named_parameters():
        weight.requires_grad_(not name.endswith("bias"))
    return network


@pytest.mark.parametrize("name", ["convnext_v2_atto", "regnet_y_200m"])
def test_muon_needs_matrices(name):
    network = tiny() if name == "convnext_v2_atto" else create_network(name, 4, size=(32, 32))
    if name == "convnext_v2_atto":
        network.body.requires_grad_(False)
    with pytest.raises(ConfigError, match=rf"optim\.name: muon .* blocks of {name} train none; take adamw"):
        make_optimizers(network, network, Optim(name="muon"))


def test_nothing_to_train_is_told():
    network = tiny().requires_grad_(False)
    with pytest.raises(ConfigError, match="freeze: no weight of convnext_v2_atto is left to train"):
        make_optimizers(network, network, Optim())


FOREIGN = [
    ("sgd", {"beta2": 0.9}),
    ("sgd", {"eps": 1e-6}),
    ("lars", {"beta2": 0.9}),
    ("adamw", {"nesterov": False}),
    ("muon", {"nesterov": False}),
]


@pytest.mark.parametrize(("name", "option"), FOREIGN)
def test_an_option_that_the_optimizer_does_not_know_is_refused(name, option):
    (field,) = option
    with pytest.raises(ConfigError, match=rf"^{field}: {name} has no such option; leave it out"):
        Optim(name=name, **option)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_takes_the_options_it_knows_and_all_others_at_their_defaults(name):
    network = tiny()
    known = {"momentum": 0.5, "beta2": 0.9, "eps": 1e-4, "nesterov": False}
    foreign = {field for other, option in FOREIGN if other == name for field in option}
    foreign |= {"nesterov"} if name != "sgd" else set()
    make_optimizers(network, network, Optim(name=name))
    kept = {field: value for field, value in known.items() if field not in foreign}
    group = make_optimizers(network, network, Optim(name=name, **kept))[-1].param_groups[0]
    betas = group.get("betas", (group.get("momentum"), group.get("alpha")))
    assert betas[0] == 0.5
    assert betas[1] == kept.get("beta2")
    assert group.get("eps") == kept.get("eps")
    assert not group.get("nesterov")


def test_the_learning_rate_is_scaled_with_the_batch():
    """Linear: Goyal et al. 2017, who train with 0.1 for 256 pictures and 3.2 for 8192; the root: Krizhevsky 2014."""
    goyal = {"name": "sgd", "lr": 0.1, "lr_batch": 256}
    assert scaled_lr(Optim(**goyal, lr_scale="linear"), 8192) == pytest.approx(3.2)
    assert scaled_lr(Optim(**goyal, lr_scale="sqrt"), 8192) == pytest.approx(0.1 * math.sqrt(32))
    assert scaled_lr(Optim(**goyal, lr_scale="linear"), 64) == pytest.approx(0.025)
    assert scaled_lr(Optim(**goyal), 8192) == 0.1

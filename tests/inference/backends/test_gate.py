"""The gate: what computes right passes, also with the rounding of bfloat16; what does not is refused and says why."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from birder.inference.backends import gate
from birder.inference.backends.base import Outputs
from birder.inference.backends.gate import Agreement, agreement, golden_pictures, reference, refusal
from birder.networks import Network, create_network
from birder.signature import rgb_stats

STATS = rgb_stats("birder")
Change = Callable[[Outputs], Outputs]


class Eager:
    """A true backend in plain torch, whose answers may be changed on the way out."""

    name = "fake"
    device = torch.device("cpu")

    def __init__(self, network: Network, batch_size: int = 4, change: Change | None = None) -> None:
        self.network, self.batch_size, self.change = network, batch_size, change or (lambda outputs: outputs)

    def __call__(self, images: Tensor) -> Outputs:
        assert 1 <= len(images) <= self.batch_size
        dtype = next(self.network.parameters()).dtype
        with torch.inference_mode():
            embeddings = self.network.embedding(images.to(dtype))
            logits = self.network.classify(embeddings).float().numpy() if self.network.num_classes else None
        return self.change(Outputs(embeddings.float().numpy(), logits))


def opinionated(name: str, num_classes: int = 20, **options: object) -> Network:
    """A network whose every weight matters: biases and norms too, as after a training."""
    torch.manual_seed(3)
    network = create_network(name, num_classes, **options).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if num_classes:
            nn.init.normal_(network.classifier.weight, std=0.3)
    return network


NETWORKS: dict[str, dict[str, object]] = {
    "convnext_v2_atto": {"size": (32, 32), "in_channels": (16, 32, 64, 128), "num_layers": (1, 1, 2, 1)},
    "vit_t16": {"size": (32, 32), "patch_size": 8, "num_layers": 3},
    "regnet_x_200m": {"size": (32, 32)},
}


@pytest.fixture(scope="module")
def network() -> Network:
    return opinionated("convnext_v2_atto", **NETWORKS["convnext_v2_atto"])


def compared(network: Network, backend: Eager, count: int = 13) -> Agreement:
    images = golden_pictures(network.size, STATS, count)
    return agreement(backend, reference(network, images), images)


def test_golden_pictures_are_normalised_all_different_and_the_same_each_time() -> None:
    images = golden_pictures((40, 48), STATS, 97)
    assert images.shape == (97, 3, 40, 48) and images.dtype == torch.float32
    assert torch.equal(images[:13], golden_pictures((40, 48), STATS, 13))
    flat = images.flatten(1)
    assert torch.cdist(flat, flat).add(1e9 * torch.eye(97)).min() > 1
    assert torch.equal(images[12], images[0].flip(-1))
    shifted = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    plain = golden_pictures((40, 48), shifted, 1)  # type: ignore[arg-type]
    assert plain.min() >= 0 and plain.max() <= 1
    mean, std = (torch.tensor(STATS[name]).view(3, 1, 1) for name in ("mean", "std"))  # type: ignore[literal-required]
    assert torch.allclose(images[0], (plain[0] - mean) / std, atol=1e-6)


def test_networks_that_take_tiny_pictures_get_them() -> None:
    assert golden_pictures((16, 20), STATS, 2).shape == (2, 3, 16, 20)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_size", [1, 4, 5, 16])
def test_the_network_itself_agrees_in_any_batches(name: str, batch_size: int) -> None:
    network = opinionated(name, **NETWORKS[name])
    found = compared(network, Eager(network, batch_size))
    assert refusal(found, "fp32") is None
    assert (found.pictures, found.same, found.lead, found.whole, found.finite) == (13, 1, 0, True, True)
    assert found.error < 1e-4 and found.correlation > 0.99999


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_classes", [20, 0])
def test_true_bfloat16_passes_as_such_and_not_as_fp32(name: str, num_classes: int) -> None:
    network = opinionated(name, num_classes, **NETWORKS[name])
    found = compared(network, Eager(copy.deepcopy(network).to(torch.bfloat16)))
    assert refusal(found, "bf16") is None, found
    assert refusal(found, "fp32") is not None


def test_a_network_fresh_from_its_making_passes_in_bfloat16() -> None:
    """Its probabilities are flat, its embeddings hardly differ, and the logits of a ViT are all zero."""
    for name, options in NETWORKS.items():
        network = create_network(name, 100, **options).eval()  # type: ignore[arg-type]
        found = compared(network, Eager(copy.deepcopy(network).to(torch.bfloat16)))
        assert refusal(found, "bf16") is None, (name, found)


def swapped(outputs: Outputs) -> Outputs:
    return Outputs(*(None if array is None else array[::-1] for array in outputs))  # type: ignore[arg-type]


def constant(outputs: Outputs) -> Outputs:
    return Outputs(*(None if array is None else np.tile(array[:1], (len(array), 1)) for array in outputs))  # type: ignore[arg-type]


def with_nan(outputs: Outputs) -> Outputs:
    for array in outputs:
        if array is not None:
            array[-1, 0] = np.nan
    return outputs


def deaf_to_the_last(outputs: Outputs) -> Outputs:
    for array in outputs:
        if array is not None:
            array[3:] = 0
    return outputs


def unit_length(outputs: Outputs) -> Outputs:
    return outputs._replace(embeddings=outputs.embeddings / np.linalg.norm(outputs.embeddings, axis=1, keepdims=True))


def full_batches_only(outputs: Outputs) -> Outputs:
    return Outputs(*(None if array is None else array[: len(array) // 4 * 4] for array in outputs))  # type: ignore[arg-type]


BROKEN: dict[Change, str] = {
    swapped: "",
    constant: "",
    with_nan: "not all numbers",
    deaf_to_the_last: "",
    unit_length: "embeddings are off",
    full_batches_only: "one answer for each of 13 pictures",
}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("num_classes", [20, 0])
@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_what_is_broken_is_refused(change: Change, num_classes: int, precision: str) -> None:
    network = opinionated("convnext_v2_atto", num_classes, **NETWORKS["convnext_v2_atto"])
    why = refusal(compared(network, Eager(network, 4, change)), precision)
    assert why is not None and BROKEN[change] in why


def test_a_constant_answer_is_refused_of_a_network_that_hardly_tells_pictures_apart() -> None:
    """What embeddings have in common is a hundred times what they differ in, so the answer is off by a percent."""
    random = np.random.default_rng(0)
    wanted = Outputs((100 + random.normal(size=(13, 50))).astype(np.float32), None)
    images = torch.zeros(13, 3, 8, 8)
    found = agreement(Says(Outputs(np.full((13, 50), 100, np.float32), None)), wanted, images)
    assert found.error < gate.BOUNDS["bf16"].error
    assert "apart" in str(refusal(found, "bf16"))
    rounded = torch.from_numpy(wanted.embeddings).to(torch.bfloat16).float().numpy()
    assert refusal(agreement(Says(Outputs(rounded, None)), wanted, images), "bf16") is None


def test_the_answers_of_another_network_are_refused(network: Network) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * parameter.abs().mean() * torch.randn_like(parameter))
    assert refusal(compared(network, Eager(other)), "bf16") is not None


def test_every_single_lost_bias_is_seen_in_fp32(network: Network) -> None:
    names = [name for name, value in network.named_parameters() if value.ndim == 1]
    assert len(names) > 30
    for name in names:
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.get_parameter(name).zero_()
        assert refusal(compared(network, Eager(other)), "fp32") is not None, name


def test_another_epsilon_is_seen_in_fp32(network: Network) -> None:
    other = copy.deepcopy(network)
    norms = [module for module in other.modules() if hasattr(module, "eps")]
    for norm in norms:
        norm.eps = 1e-3
    assert norms
    assert refusal(compared(network, Eager(other)), "fp32") is not None


def test_without_logits_of_a_classifier_or_with_too_many_columns_it_is_no_answer(network: Network) -> None:
    changes: list[Change] = [
        lambda outputs: outputs._replace(logits=None),
        lambda outputs: outputs._replace(embeddings=outputs.embeddings[:, 1:]),
        lambda outputs: outputs._replace(logits=np.pad(outputs.logits, ((0, 0), (0, 1)))),  # type: ignore[arg-type]
    ]
    for change in changes:
        assert "one answer for each" in str(refusal(compared(network, Eager(network, 4, change)), "int8"))


def test_a_reference_that_is_no_number_agrees_with_nothing(network: Network) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.classifier.weight[0, 0] = torch.nan
    assert "torch fp32" in str(refusal(compared(broken, Eager(broken)), "fp32"))


def rows(logits: list[list[float]]) -> Outputs:
    return Outputs(np.eye(len(logits), 4, dtype=np.float32), np.log(np.array(logits, np.float32)))


class Says(Eager):
    """Gives these answers, one after the other."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs, self.batch_size, self.place = outputs, 2, 0

    def __call__(self, images: Tensor) -> Outputs:
        here = slice(self.place, self.place + len(images))
        self.place += len(images)
        return Outputs(
            self.outputs.embeddings[here], None if self.outputs.logits is None else self.outputs.logits[here]
        )


def test_numbers_by_hand() -> None:
    wanted = rows([[0.50, 0.48, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    close = rows([[0.49, 0.49, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    images = torch.zeros(3, 3, 8, 8)
    found = agreement(Says(close), wanted, images)
    assert found.probability == pytest.approx(0.01, abs=1e-6) and found.same == 1
    other = rows([[0.48, 0.50, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    found = agreement(Says(other), wanted, images)
    assert found.same == pytest.approx(2 / 3)
    assert found.lead == pytest.approx(0.02, abs=1e-6) and found.probability == pytest.approx(0.02, abs=1e-6)
    assert refusal(found, "bf16") is None or "logits" in str(refusal(found, "bf16"))
    # The lead is that over the class which came out best, not over the second.
    worse = rows([[0.02, 0.48, 0.50], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    assert agreement(Says(worse), wanted, images).lead == pytest.approx(0.48, abs=1e-6)
    # Embeddings: unit vectors lie sqrt(2/3) from their mean; half a unit off is 0.5 / sqrt(2/3).
    off = wanted._replace(embeddings=wanted.embeddings + np.float32(0.25))
    found = agreement(Says(off), wanted, images)
    assert found.error == pytest.approx(0.5 / np.sqrt(2 / 3), abs=1e-6)
    assert found.logit_error == 0


def test_each_bound_refuses_on_its_own() -> None:
    good = Agreement(
        pictures=13, whole=True, finite=True, same=1, lead=0, probability=0, error=0, logit_error=0, correlation=1
    )
    for precision, bounds in gate.BOUNDS.items():
        assert refusal(good, precision) is None
        at = replace(good, probability=bounds.probability, lead=bounds.probability, error=bounds.error, same=0.5)
        assert refusal(at, precision) is None
        assert "a probability is off" in str(refusal(replace(good, probability=1.01 * bounds.probability), precision))
        assert "another class" in str(refusal(replace(good, lead=1.01 * bounds.probability, same=0.9), precision))
        assert "embeddings" in str(refusal(replace(good, error=1.01 * bounds.error), precision))
        assert "logits" in str(refusal(replace(good, logit_error=1.01 * bounds.error), precision))
        assert "apart" in str(refusal(replace(good, correlation=bounds.correlation - 0.01), precision))
        assert refusal(replace(good, error=float("nan")), precision) is not None
        assert refusal(replace(good, correlation=float("nan")), precision) is not None
    assert "13 of 13 drawn birds" in str(good)

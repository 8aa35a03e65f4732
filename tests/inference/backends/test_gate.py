"""The gate: what computes right passes, also with the rounding of bfloat16; what does not is refused and says why."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from birder.data.fitting import Pixels, normalized
from birder.inference.backends import gate
from birder.inference.backends.base import Outputs
from birder.inference.backends.gate import Agreement, agreement, golden_pictures, refusal
from birder.inference.backends.probing import reference
from birder.networks import Network, create_network
from birder.signature import rgb_stats
from tests.inference.backends.at_once import AtOnce

STATS = rgb_stats("birder")
Change = Callable[[Outputs], Outputs]


class Eager(AtOnce):
    """A true backend in plain torch, whose answers may be changed on the way out."""

    name = "fake"

    def __init__(self, network: Network, batch_size: int = 4, change: Change | None = None) -> None:
        self.network, self.batch_size, self.change = network, batch_size, change or (lambda outputs: outputs)

    def answers(self, pixels: Pixels) -> Outputs:
        assert 1 <= len(pixels) <= self.batch_size
        images = torch.from_numpy(normalized(pixels, STATS))
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
    pictures = golden_pictures(network.size, count)
    return agreement(backend, reference(network, pictures, STATS), pictures)


def test_golden_pictures_are_all_different_and_the_same_each_time() -> None:
    pictures = golden_pictures((40, 48), 97)
    assert pictures.shape == (97, 40, 48, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures[:13], golden_pictures((40, 48), 13))
    flat = torch.from_numpy(pictures).flatten(1).double() / 255
    assert torch.cdist(flat, flat).add(1e9 * torch.eye(97)).min() > 0.2
    assert np.array_equal(pictures[12], pictures[0, :, ::-1])


def test_networks_that_take_tiny_pictures_get_them() -> None:
    assert golden_pictures((16, 20), 2).shape == (2, 16, 20, 3)


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
    pictures = np.zeros((13, 8, 8, 3), np.uint8)
    found = agreement(Says(Outputs(np.full((13, 50), 100, np.float32), None)), wanted, pictures)
    assert found.error < gate.BOUNDS["bf16"].error
    assert "apart" in str(refusal(found, "bf16"))
    rounded = torch.from_numpy(wanted.embeddings).to(torch.bfloat16).float().numpy()
    assert refusal(agreement(Says(Outputs(rounded, None)), wanted, pictures), "bf16") is None


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

    def answers(self, pixels: Pixels) -> Outputs:
        here = slice(self.place, self.place + len(pixels))
        self.place += len(pixels)
        return Outputs(
            self.outputs.embeddings[here], None if self.outputs.logits is None else self.outputs.logits[here]
        )


def test_numbers_by_hand() -> None:
    wanted = rows([[0.50, 0.48, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    close = rows([[0.49, 0.49, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    pictures = np.zeros((3, 8, 8, 3), np.uint8)
    found = agreement(Says(close), wanted, pictures)
    assert found.probability == pytest.approx(0.01, abs=1e-6) and found.same == 1
    other = rows([[0.48, 0.50, 0.02], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    found = agreement(Says(other), wanted, pictures)
    assert found.same == pytest.approx(2 / 3)
    assert found.lead == pytest.approx(0.02, abs=1e-6) and found.probability == pytest.approx(0.02, abs=1e-6)
    assert refusal(found, "bf16") is None or "logits" in str(refusal(found, "bf16"))
    # The lead is that over the class which came out best, not over the second.
    worse = rows([[0.02, 0.48, 0.50], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    assert agreement(Says(worse), wanted, pictures).lead == pytest.approx(0.48, abs=1e-6)
    # Embeddings: unit vectors lie sqrt(2/3) from their mean; half a unit off is 0.5 / sqrt(2/3).
    off = wanted._replace(embeddings=wanted.embeddings + np.float32(0.25))
    found = agreement(Says(off), wanted, pictures)
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

"""Explanations of every network: what they are, and that they leave no trace."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.catalogue import catalogue
from birder.errors import ConfigError, NotFinite
from birder.explain import Method, explain
from birder.explain.grad_cam import stage_names
from birder.gallery import gallery
from birder.model_file import load_model, save_model
from birder.networks import Network, create_network, list_networks, networks
from birder.signature import rgb_stats

VIT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
SMALL: dict[str, dict[str, Any]] = {
    "ConvNeXtV2": {"in_channels": (8, 16, 24, 32), "num_layers": (1, 1, 2, 1)},
    "PVTv2": {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 20, 32), "mlp_ratios": (2.0, 2.0, 2.0, 2.0)},
    "RegNet": {"depth": 6, "w_0": 8, "w_a": 8.0, "w_m": 2.0},
    "ViT": VIT,
    "ViTParallel": VIT,
}
ONE_OF_EACH = ("convnext_v2_atto", "pvt_v2_b0", "regnet_y_200m", "vit_reg4_b16", "vit_parallel_s16_18x2_ls_avg")


def made(name: str, *, classes: int = 5, patches: int = 4, **options: Any) -> Network:
    """A small network of that name, whose classifier is no longer zero."""
    torch.manual_seed(0)
    small = SMALL[networks[name][0].__name__] | options
    side = create_network(name, 0, **small).max_stride
    network = create_network(name, classes, size=(side * patches, side * (patches + 1)), **small)
    nn.init.normal_(network.classifier.weight)
    return network.eval()


def picture(network: Network) -> Tensor:
    """Noise, rough and fine."""
    coarse = F.interpolate(torch.randn(1, 3, 4, 4), size=network.size)[0]
    return coarse + 0.3 * torch.randn(3, *network.size)


def assert_is_heat(heat: np.ndarray[Any, Any], network: Network) -> None:
    assert heat.shape == network.size and heat.dtype == np.float32
    assert heat.min() == 0 and heat.max() == 1
    assert len(np.unique(heat)) > 16


@pytest.mark.parametrize("name", list_networks())
def test_every_network_is_explained(name: str) -> None:
    network = made(name, patches=2)
    image = picture(network)
    found = explain(network, image)
    assert found.label == int(network(image[None]).argmax())
    assert found.method == ("rollout" if "vit" in name or "deit" in name else "grad-cam")
    assert_is_heat(found.heat, network)


def test_every_published_model_that_is_supported_is_of_such_a_network() -> None:
    assert {entry.network for entry in catalogue().values() if not entry.obstacle} <= set(list_networks())


@pytest.mark.slow  # minutes
@pytest.mark.parametrize("name", [name for name, row in gallery().items() if row.parameters < 120e6])
def test_networks_as_large_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    side = create_network(name, 0).max_stride
    network = create_network(name, 7, size=(4 * side, 4 * side)).eval()
    nn.init.normal_(network.classifier.weight)
    assert_is_heat(explain(network, picture(network)).heat, network)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_each_stage_can_be_looked_at(name: str) -> None:
    network = made(name)
    image = picture(network)
    heats = [explain(network, image, method="grad-cam", stage=stage).heat for stage in (None, *stage_names(network))]
    for heat in heats:
        assert_is_heat(heat, network)
    if len(heats) > 1:
        np.testing.assert_array_equal(heats[0], heats[-1])
        assert not np.array_equal(heats[0], heats[1])


@pytest.mark.parametrize("method", ["grad-cam", "rollout"])
def test_another_class_has_other_reasons(method: Method) -> None:
    network = made("vit_s16_avg")
    image = picture(network)
    first, second = (explain(network, image, label=label, method=method) for label in (0, 1))
    assert (first.label, second.label, first.method) == (0, 1, method)
    assert np.abs(first.heat - second.heat).max() > 0.1
    np.testing.assert_array_equal(first.heat, explain(network, image, label=0, method=method).heat)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_it_leaves_no_trace(name: str) -> None:
    network = made(name).train()
    network.blocks()[0].eval()
    network.stage_ends()[-1].requires_grad_(False)
    for weight in network.classifier.parameters():
        weight.grad = torch.ones_like(weight)
    image = picture(network)
    before, given = _state(network), image.clone()
    for method in ("auto", "grad-cam"):
        explain(network, image, method=method)
    torch.testing.assert_close(image, given, rtol=0, atol=0)
    assert not image.requires_grad
    torch.testing.assert_close(_state(network), before, rtol=0, atol=0)


def _state(network: Network) -> dict[str, Any]:
    """All that an explanation might have changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(network.modules())
    return {
        "weights": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "modes": [module.training for module in modules],
        "hooks": sum(len(getattr(module, kind)) for module in modules for kind in hooks),
        "learning": [weight.requires_grad for weight in network.parameters()],
        "gradients": {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None},
    }


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_error_leaves_no_trace_either(name: str) -> None:
    network = made(name)
    before = _state(network)
    network.classifier.register_forward_pre_hook(_fail)
    for method in ("auto", "grad-cam"):
        with pytest.raises(RuntimeError, match="on purpose"):
            explain(network, picture(network), label=0, method=method)
    network.classifier._forward_pre_hooks.clear()
    torch.testing.assert_close(_state(network), before, rtol=0, atol=0)


def _fail(module: nn.Module, given: object) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_weights_in_a_file_that_may_only_be_read(name: str, tmp_path: Path) -> None:
    network = made(name)
    path = tmp_path / "model.safetensors"
    names = {f"Bird {label}": label for label in range(5)}
    save_model(path, network, class_to_idx=names, rgb_stats=rgb_stats("birder"))
    path.chmod(0o444)
    content = path.read_bytes()
    loaded, _ = load_model(path)
    image = picture(network)
    with torch.inference_mode():
        heat = explain(loaded, image + 0.0).heat
    np.testing.assert_allclose(heat, explain(network, image).heat, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_array_equal(heat, explain(loaded, image).heat)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    network = made(name)
    image = picture(network)
    heat = explain(network, image).heat
    network.set_gradient_checkpointing()
    np.testing.assert_allclose(explain(network, image).heat, heat, atol=1e-5)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("method", ["auto", "grad-cam"])
def test_no_evidence_is_no_heat(name: str, method: Method) -> None:
    network = made(name)
    nn.init.zeros_(network.classifier.weight)
    heat = explain(network, picture(network), method=method).heat
    np.testing.assert_array_equal(heat, np.zeros(network.size, np.float32))


def test_the_same_everywhere_is_no_heat() -> None:
    network = made("regnet_y_200m", patches=1)
    with torch.no_grad():
        network.classifier.weight.abs_()  # everything speaks for it
    heat = explain(network, picture(network)[:, :, : network.max_stride]).heat
    np.testing.assert_array_equal(heat, np.zeros((32, 32), np.float32))


def test_a_picture_of_another_size() -> None:
    network = made("vit_reg4_b16")
    with pytest.raises(ConfigError, match="adjust_size"):
        explain(network, torch.randn(3, 96, 32))
    network.set_dynamic_size()
    assert explain(network, torch.randn(3, 96, 32)).heat.shape == (96, 32)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_damaged_weights(name: str) -> None:
    network = made(name)
    with torch.no_grad():
        network.classifier.weight[1] = torch.nan
    with pytest.raises(NotFinite, match="no number"):
        explain(network, picture(network), label=1)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("convnext_v2_atto", {"label": 5}, "0 to 4"),
        ("convnext_v2_atto", {"label": -1}, "0 to 4"),
        ("convnext_v2_atto", {"method": "rollout"}, "take grad-cam"),
        ("convnext_v2_atto", {"method": "lime"}, "'lime'"),
        ("convnext_v2_atto", {"stage": "stage5"}, "stage1, stage2, stage3, stage4"),
        ("vit_s16_avg", {"stage": "neck"}, "no stages"),
    ],
)
def test_what_there_is_not(name: str, options: dict[str, Any], message: str) -> None:
    network = made(name)
    with pytest.raises(ConfigError, match=message):
        explain(network, picture(network), **options)


def test_what_cannot_be_explained() -> None:
    network = made("convnext_v2_atto")
    with pytest.raises(ConfigError, match=r"one picture, \(3, height, width\)"):
        explain(network, picture(network)[None])
    network.reset_classifier(0)
    with pytest.raises(ConfigError, match="no classifier"):
        explain(network, picture(network))

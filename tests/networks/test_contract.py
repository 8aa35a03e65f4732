"""Every architecture keeps the promises of ``birder.testing``, and each broken promise is noticed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from birder.config import with_options
from birder.errors import ConfigError, UnknownName
from birder.networks import Network, create_network, networks
from birder.networks.convnext_v2 import ConvNeXtV2
from birder.networks.vit import ViT
from birder.testing import PROMISES, BrokenPromise, check_network

# A registered name of each architecture, and options that make it small.
SMALL: dict[str, dict[str, Any]] = {
    "convnext_v2_atto": {"in_channels": (8, 16, 24, 32), "num_layers": (1, 1, 2, 1)},
    "vit_t16": {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
    "vit_parallel_s16_18x2_ls_avg": {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
    "pvt_v2_b0": {"depths": (1, 1, 2, 1), "embed_dims": (8, 16, 20, 32), "mlp_ratios": (2.0, 2.0, 2.0, 2.0)},
    "regnet_y_200m": {"depth": 6, "w_0": 8, "w_a": 8.0, "w_m": 2.0},
}


@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_all_promises(name: str) -> None:
    check_network(name, size=(64, 96), **SMALL[name])


@pytest.mark.parametrize("name", SMALL)
def test_options_of_the_head(name: str) -> None:
    options = {"size": (64, 64), **SMALL[name]}
    assert create_network(name, 4, head_bias=False, **options).classifier.bias is None
    hidden = create_network(name, 4, mlp_head=True, **options)
    assert [type(layer) for layer in hidden.classifier] == [nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear]
    assert hidden(torch.randn(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.slow  # 12 s
@pytest.mark.parametrize("name", SMALL)
def test_it_compiles_into_one_graph_and_learns(name: str) -> None:
    network = create_network(name, 4, size=(64, 64), **SMALL[name]).train()
    x = torch.randn(2, 3, 64, 64)
    expected = network(x)
    compiled: Tensor = torch.compile(network, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)
    compiled.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_every_architecture_is_checked() -> None:
    assert {cls for cls, _ in networks.values()} == {networks[name][0] for name in SMALL}


def test_mistakes_in_the_arguments_are_the_caller_s() -> None:
    with pytest.raises(UnknownName, match="did you mean convnext_v2_atto"):
        check_network("convnext_v2_ato")
    with pytest.raises(ConfigError, match="no such option"):
        check_network("convnext_v2_atto", num_layer=(1, 1, 1, 1))


class OtherEmbedding(ConvNeXtV2):
    def embedding(self, x: Tensor) -> Tensor:
        return 2 * super().embedding(x)


class OtherLogits(ConvNeXtV2):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :-1]


class CoarsestFirst(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stages = dict(reversed(self.stages.items()))

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        return dict(reversed(super().detection_features(x).items()))


class WrongWidths(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stages = dict.fromkeys(self.stages, 8)


class WrongStride(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.max_stride = 16


class OneSize(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.only = self.size

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == self.only, f"pictures must be {self.only}"
        return super().forward(x)


class ForgetsSize(ConvNeXtV2):
    def adjust_size(self, size: tuple[int, int]) -> None:
        pass


class SpareWeight(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spare = nn.Parameter(torch.zeros(3))


class SharedCopy(ConvNeXtV2):
    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedCopy":
        return self


class ManglesNames(ConvNeXtV2):
    renamed = ((r"^stem\.", "trunk."),)


class HiddenWeight(ConvNeXtV2):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("factor", torch.rand(()) + 0.5, persistent=False)

    def pool(self, features: Tensor) -> Tensor:
        return super().pool(features) * self.factor


class KeepsClassifier(ConvNeXtV2):
    def reset_classifier(self, num_classes: int) -> None:
        if not hasattr(self, "classifier"):
            super().reset_classifier(num_classes)


class FreshFirstLayer(ConvNeXtV2):
    def adjust_input_channels(self, channels: int) -> None:
        first = self.stem[0]
        assert isinstance(first, nn.Conv2d)
        self.stem[0] = nn.Conv2d(channels, first.out_channels, kernel_size=4, stride=4)
        self.input_channels = channels


class MixesPictures(ConvNeXtV2):
    def pool(self, features: Tensor) -> Tensor:
        embedding = super().pool(features)
        return embedding - embedding.mean(dim=0)


class CoarseInHalf(ConvNeXtV2):
    def pool(self, features: Tensor) -> Tensor:
        features = features.round() if torch.is_autocast_enabled("cpu") else features
        return super().pool(features)


class NoBlocks(ConvNeXtV2):
    def blocks(self) -> list[nn.Module]:
        return []


class BlocksBackwards(ConvNeXtV2):
    def blocks(self) -> list[nn.Module]:
        return super().blocks()[::-1]


class BlocksInBlocks(ConvNeXtV2):
    def blocks(self) -> list[nn.Module]:
        return [self.body, *super().blocks()]


class StrangeBlocks(ConvNeXtV2):
    def blocks(self) -> list[nn.Module]:
        return [nn.Identity()]


class FreezesNothing(ConvNeXtV2):
    def freeze(self, stages: int | None = None) -> None:
        pass


class FreezesNoNorm(ConvNeXtV2):
    """Its statistics go on changing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.features.append(nn.BatchNorm1d(self.embedding_size))

    def train(self, mode: bool = True) -> "FreezesNoNorm":
        return nn.Module.train(self, mode)


class KeepsEverything(ConvNeXtV2):
    def set_gradient_checkpointing(self, on: bool = True) -> None:
        pass


class OtherGradients(ConvNeXtV2):
    def set_gradient_checkpointing(self, on: bool = True) -> None:
        super().set_gradient_checkpointing(on)
        self.blocks()[0].requires_grad_(not on)
        self.stem.requires_grad_(not on)


class IgnoresMask(ConvNeXtV2):
    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        return self.forward_features(x)


class AlwaysMasks(ConvNeXtV2):
    def encode_masked(self, x: Tensor, mask: Tensor, token: Tensor | None) -> Tensor:
        return super().encode_masked(x, torch.ones_like(mask), token)


class LooksAtNumbers(ConvNeXtV2):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) < 1e9 else x


class SeesAll(ViT):
    def encode_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        tokens = self.forward_features(x)
        first = self.num_special_tokens
        kept = tokens[:, first:].gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))
        return torch.cat([tokens[:, :first], kept], dim=1)


class SortsPatches(ViT):
    def encode_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        return super().encode_visible(x, keep.sort(dim=1).values)


class ForgetsNorm(ViT):
    def encode_layers(self, x: Tensor) -> list[Tensor]:
        *first, last = super().encode_layers(x)
        return [*first, 2 * last]


class WideTokenBlocks(ViT):
    def token_block(self, width: int, num_heads: int = 16) -> nn.Module:
        return nn.Linear(width, 2 * width)


class RandomTokenBlocks(ViT):
    def token_block(self, width: int, num_heads: int = 16) -> nn.Module:
        return nn.Sequential(super().token_block(width, num_heads), nn.Dropout(0.5))


class LonelyTokenBlocks(ViT):
    def token_block(self, width: int, num_heads: int = 16) -> nn.Module:
        return nn.Linear(width, width)


class WideMapBlocks(ConvNeXtV2):
    def map_block(self, width: int) -> nn.Module:
        return nn.Conv2d(width, width + 1, kernel_size=3, padding=1)


class SpareMapBlocks(ConvNeXtV2):
    def map_block(self, width: int) -> nn.Module:
        block = super().map_block(width)
        block.register_parameter("spare", nn.Parameter(torch.zeros(3)))
        return block


class LastLayerOnly(ViT):
    def encode_layers(self, x: Tensor) -> list[Tensor]:
        return super().encode_layers(x)[-1:]


class BreaksTheGraph(ConvNeXtV2):
    def pool(self, features: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return super().pool(features)


BROKEN: list[tuple[type[Network], str]] = [
    (OtherEmbedding, r"promised shapes: pool\(forward_features\(x\)\), unlike embedding\(x\), differs"),
    (OtherLogits, r"promised shapes: forward\(x\) gives \(2, 4\), not \(2, 5\)"),
    (CoarsestFirst, "the stages: the finest map does not come first"),
    (WrongWidths, r"the stages: stage2 gives \(2, 16, 8, 12\), not \(2, 8, 8, 12\)"),
    (WrongStride, "the stages: the last map has .* max_stride 16 means"),
    (OneSize, "other sizes: AssertionError: pictures must be"),
    (ForgetsSize, r"other sizes: size is \(64, 96\) after"),
    (SpareWeight, "reach every parameter: none reaches spare"),
    (SharedCopy, r"can be copied: embedding\(x\), after a change of the copy, differs"),
    (ManglesNames, "saved and loaded: WeightsMismatch"),
    (HiddenWeight, "saved and loaded: forward"),
    (KeepsClassifier, "classifier can be replaced: num_classes is 5"),
    (FreshFirstLayer, "input channels can change: embedding of a gray picture in one channel"),
    (MixesPictures, "the same each time: the embedding of a picture alone, unlike in a batch, differs"),
    (CoarseInHalf, "close to float32: .* differs"),
    (NoBlocks, "in order: there are none"),
    (BlocksBackwards, "in order: they are not in the order of the modules"),
    (BlocksInBlocks, "in order: one lies within another"),
    (StrangeBlocks, "in order: some are not modules of the network"),
    (FreezesNothing, r"can be frozen: freeze\(0\) freezes no more"),
    (FreezesNoNorm, "can be frozen: a pass through the frozen network changes features.3.running_mean"),
    (KeepsEverything, "changes no result: as much is kept with it as without"),
    (OtherGradients, "changes no result: "),
    (IgnoresMask, "hides what is masked: encode_masked shows what is hidden"),
    (AlwaysMasks, "hides what is masked: encode_masked with nothing hidden, unlike forward_features, differs"),
    (SeesAll, "drops what is not kept: encode_visible sees patches that are dropped"),
    (SortsPatches, "drops what is not kept: encode_visible of patches in another order differs"),
    (ForgetsNorm, "shows every layer: the last of encode_layers, unlike forward_features, differs"),
    (WideTokenBlocks, r"keep the shape: token_block\(64, 16\) gives \(2, 7, 128\), not \(2, 7, 64\)"),
    (RandomTokenBlocks, r"keep the shape: token_block\(64, 16\) in training, the second time, differs"),
    (LonelyTokenBlocks, r"keep the shape: token_block\(64, 16\) lets no place see the one beside it"),
    (WideMapBlocks, r"keep the shape: map_block\(64\) gives \(2, 65, 3, 5\), not \(2, 64, 3, 5\)"),
    (SpareMapBlocks, r"keep the shape: map_block\(64\) has weights that no gradient reaches, spare"),
    (LastLayerOnly, "shows every layer: there are 1 layers, and 2 blocks"),
    (LooksAtNumbers, "torch.export works: "),
    (BreaksTheGraph, "torch.compile takes it whole: Unsupported"),
]


@pytest.mark.parametrize(("cls", "problem"), BROKEN, ids=[cls.__name__ for cls, _ in BROKEN])
def test_a_broken_promise_is_noticed(cls: type[Network], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vit_t16" if issubclass(cls, ViT) else "convnext_v2_atto"
    config = with_options(networks[name][1], SMALL[name])
    monkeypatch.setitem(networks._entries, "broken", (cls, config))
    with pytest.raises(BrokenPromise, match=f"^broken: .*{problem}"):
        check_network("broken", size=(64, 96))


def test_every_promise_is_shown_to_break() -> None:
    ends = [problem.split(":")[0] for _, problem in BROKEN]
    assert not [promise for promise in PROMISES if not any(promise.endswith(end) for end in ends)]

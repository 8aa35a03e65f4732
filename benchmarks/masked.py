"""MAE: what token omission saves, and a step against one written by hand.

python benchmarks/masked.py [--network vit_s16] [--size 224] [--batch-size 16] [--mask-ratio 0.75] [--decoder-depth 8]
    [--decoder-width 512] [--device cpu] [--dtype float32] [--threads 1] [--rounds 8]

All go forward and backward through the same pictures, in turns in one process; times are medians per picture, ratios
medians over the rounds. ``encoder`` is the network alone, with the visible patches or with all of them; ``step`` is MAE
with its decoder; ``all tokens`` is MAE whose network sees all patches, with zeros in place of the hidden ones;
``by hand`` is the plain way to write the paper down, with torch's own transformer layers of the same sizes.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from birder.layers.position import sincos_positions
from birder.networks import Network, create_network
from birder.networks.vit import ViT
from birder.objectives.configs import MAEConfig
from birder.objectives.mae import MAE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vit_s16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mask-ratio", type=float, default=0.75)
    parser.add_argument("--decoder-depth", type=int, default=8)
    parser.add_argument("--decoder-width", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = MAEConfig(
        mask_ratio=options.mask_ratio, decoder_depth=options.decoder_depth, decoder_width=options.decoder_width
    )
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    steps = candidates(lambda: create_network(options.network, 0, size=tuple(images.shape[2:])), config, images)

    def run(which: str) -> float:
        synchronize(device)
        began = time.perf_counter()
        with torch.autocast(device.type, getattr(torch, options.dtype), enabled=options.dtype != "float32"):
            loss = steps[which]()
        loss.backward()
        synchronize(device)
        return time.perf_counter() - began

    seconds: dict[str, list[float]] = {which: [] for which in steps}
    for number in range(options.rounds + 2):  # the first two warm up
        for which in sorted(steps, reverse=number % 2 == 1):  # who comes first takes turns
            elapsed = run(which)
            if number > 1:
                seconds[which].append(elapsed)
    print(f"{options.network}, {options.size} px, {options.batch_size} pictures, {options.device}, {options.dtype}")
    for which, times in seconds.items():
        print(f"{which:24} {1000 * statistics.median(times) / len(images):8.2f} ms per picture")
    for slow, fast in (("encoder, all", "encoder, visible"), ("step, all tokens", "step"), ("step by hand", "step")):
        ratio = statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))
        print(f"{slow} / {fast}: {ratio:.2f}")


def candidates(build: Callable[[], Network], config: MAEConfig, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is compared; each gives a loss."""
    mae = MAE(build(), config).to(images.device).train()
    whole = AllTokens(build(), config).to(images.device).train()
    network = build().to(images.device).train()
    assert isinstance(network, ViT)
    plain = PlainMAE(network, config).to(images.device).train()
    alone = mae.network
    assert isinstance(alone, ViT)

    def encoder(ratio: float) -> Tensor:
        length = alone.grid[0] * alone.grid[1]
        keep = torch.rand(len(images), length, device=images.device).argsort(dim=1)[:, : int(length * (1 - ratio))]
        return alone.encode_visible(images, keep).float().square().mean()

    return {
        "encoder, visible": lambda: encoder(config.mask_ratio),
        "encoder, all": lambda: encoder(0.0),
        "step": lambda: mae.loss(images, mae.masks(len(images))),
        "step, all tokens": lambda: whole.loss(images, whole.masks(len(images))),
        "step by hand": lambda: plain(images),
    }


class AllTokens(MAE):
    """Nothing is left out of the network."""

    def draw(self, images: Tensor, mask: Tensor) -> Tensor:
        """All patches, of pictures whose masked parts are zeros behind the stem."""
        network = self.network
        assert isinstance(network, ViT)
        tokens = self.embed(network.encode_masked_tokens(images, mask.to(images.device), None))
        return self.decoder(tokens + self.positions)[:, network.num_special_tokens :]


class PlainMAE(nn.Module):
    """A class token, patches with positions, torch's transformer layers, and the paper's shuffling and unshuffling."""

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, like: ViT, config: MAEConfig) -> None:
        """Of the sizes of a network and of a decoder."""
        super().__init__()
        width, patch = like.config.hidden_dim, like.max_stride
        self.patch, self.ratio, self.normalized = patch, config.mask_ratio, config.normalized_targets
        self.stem = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        self.encoder = self._layers(width, like.config.num_heads, like.config.mlp_dim, like.config.num_layers)
        self.norm = nn.LayerNorm(width)
        self.embed = nn.Linear(width, config.decoder_width)
        self.decoder = self._layers(config.decoder_width, 16, 4 * config.decoder_width, config.decoder_depth)
        self.decoder_norm = nn.LayerNorm(config.decoder_width)
        self.pixels = nn.Linear(config.decoder_width, 3 * patch**2)
        self.register_buffer("positions", sincos_positions(like.grid, width)[None])
        self.register_buffer("decoder_positions", sincos_positions(like.grid, config.decoder_width)[None])

    @staticmethod
    def _layers(width: int, heads: int, hidden: int, depth: int) -> nn.Module:
        layers = [
            nn.TransformerEncoderLayer(
                width, heads, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        ]
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """The loss."""
        x = self.stem(images).flatten(2).transpose(1, 2) + self.positions
        count, length, width = x.shape
        visible = int(length * (1 - self.ratio))
        shuffle = torch.rand(count, length, device=x.device).argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        x = x.gather(1, shuffle[:, :visible, None].expand(-1, -1, width))
        x = self.embed(self.norm(self.encoder(torch.cat([self.class_token.expand(count, -1, -1), x], dim=1))))
        masked = self.mask_token.expand(count, length - visible, -1).to(x.dtype)
        tokens = torch.cat([x[:, 1:], masked], dim=1).gather(1, restore[:, :, None].expand(-1, -1, x.shape[2]))
        tokens = torch.cat([x[:, :1], tokens + self.decoder_positions], dim=1)
        drawn = self.pixels(self.decoder_norm(self.decoder(tokens)))[:, 1:]
        target = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        if self.normalized:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        errors = (drawn - target).square().mean(dim=-1)
        hidden = restore >= visible
        return (errors * hidden).sum() / hidden.sum()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()

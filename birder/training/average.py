"""A moving average of the weights, which often recognises better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from birder.errors import WeightsMismatch
from birder.training.recipe import Average


class WeightAverage:
    """The exponential moving average of a network's parameters and buffers; whole numbers are copied.

    It is kept in float32 at least, as small changes of a mean are lost in fewer digits.

    Paper: Polyak and Juditsky 1992, https://doi.org/10.1137/0330046 (of all steps alike); exponential, Tarvainen and
    Valpola 2017, https://arxiv.org/abs/1703.01780
    """

    def __init__(self, network: nn.Module, options: Average, steps_per_epoch: int) -> None:
        """Begin with the weights as they are.

        Args:
            network: What is averaged, on its device.
            options: How slowly the average follows.
            steps_per_epoch: Number of steps in one pass.
        """
        self.every = options.every
        self.warmup = round(options.warmup_epochs * steps_per_epoch)
        self.follow = 1.0 - options.decay**options.every
        self.weights = {name: _exact(tensor).clone() for name, tensor in _tensors(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow the network; called after every step.

        During the warm-up the average is a copy. After it, in each step that ends ``every`` of them, it goes
        ``1 - decay ** every`` of the way to the weights.

        Args:
            network: What is averaged.
            step: Number of the step that moved it, from 0.
        """
        past = step + 1 - self.warmup
        if past <= 0:
            _copy(self.weights, _tensors(network))
        elif past % self.every == 0:
            self._move(_tensors(network))

    @contextmanager
    def swapped(self, network: nn.Module) -> Iterator[None]:
        """The network has the average's weights in the body of ``with``, and then its own again, to the last bit."""
        own = {name: tensor.clone() for name, tensor in _tensors(network).items()}
        try:
            _copy(_tensors(network), self.weights)
            yield
        finally:
            _copy(_tensors(network), own)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by name of the weight."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            WeightsMismatch: It was taken of another network.
        """
        shapes, others = ({name: tensor.shape for name, tensor in each.items()} for each in (self.weights, state))
        if different := sorted({name for name, _ in shapes.items() ^ others.items()}):
            raise WeightsMismatch(
                f"{len(different)} averaged weights are not those of this network: {', '.join(different[:3])}"
            )
        _copy(self.weights, state)

    def _move(self, weights: dict[str, Tensor]) -> None:
        floating = [name for name, tensor in self.weights.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in floating], [_exact(weights[name]) for name in floating], self.follow
        )
        for name in self.weights.keys() - set(floating):
            self.weights[name].copy_(weights[name])


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: value.detach() for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(weights[name])

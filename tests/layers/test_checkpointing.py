"""Activation checkpointing changes nothing but the memory."""

import copy
import pickle

import pytest
import torch
from torch import nn

from birder.layers.checkpointing import checkpointed, unchecked


class Block(nn.Module):
    """Counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
        self.calls += 1
        return torch.tanh(self.layer(x)) + shift


@pytest.fixture
def block() -> Block:
    module = Block()
    checkpointed(module)
    return module


def test_it_is_computed_again_for_gradients_only(block: Block) -> None:
    x = torch.randn(2, 3)
    with torch.no_grad():
        block(x)
    assert block.calls == 1
    y = block(x, shift=1.0)
    assert block.calls == 2
    y.sum().backward()
    assert block.calls == 3


def test_names_and_kind_stay(block: Block) -> None:
    assert isinstance(block, Block)
    assert type(block).__name__ == "Block"
    assert list(block.state_dict()) == ["layer.weight", "layer.bias"]


def test_on_and_off_can_be_said_twice(block: Block) -> None:
    checkpointed(block)
    unchecked(block)
    assert type(block) is Block
    unchecked(block)
    assert type(block) is Block


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_a_copy_is_of_its_own_and_still_saves_memory(block: Block, way: object) -> None:
    twin = way(block)  # type: ignore[operator]
    assert twin.layer.weight is not block.layer.weight
    assert torch.equal(twin.layer.weight, block.layer.weight)
    twin(torch.randn(2, 3)).sum().backward()
    assert (twin.calls, block.calls) == (2, 0)
    assert block.layer.weight.grad is None

"""Hiding parts of a map."""

import torch

from birder.layers.masking import hide


def test_a_place_of_the_mask_covers_its_part_of_the_map() -> None:
    x = torch.ones(1, 2, 4, 6)
    mask = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]])  # 2 rows, 3 columns
    expected = torch.ones(1, 2, 4, 6)
    expected[:, :, :2, 2:4] = 0
    expected[:, :, 2:, 4:] = 0
    assert torch.equal(hide(x, mask, None, (2, 3)), expected)


def test_a_token_stands_at_hidden_places() -> None:
    x = torch.randn(2, 3, 2, 2)
    token = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    mask = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    y = hide(x, mask, token, (2, 2))
    assert y[0, :, 0, 0].tolist() == y[1, :, 1, 1].tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(y[0, :, 1], x[0, :, 1])
    assert torch.equal(y[1, :, 0], x[1, :, 0])


def test_nothing_hidden_changes_no_bit() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(hide(x, torch.zeros(2, 4), torch.randn(1, 1, 1, 3), (2, 2)), x)


def test_masks_may_be_boolean_and_maps_half() -> None:
    x = torch.ones(1, 2, 2, 2, dtype=torch.bfloat16)
    y = hide(x, torch.tensor([[True, False, False, False]]), torch.zeros(1, 1, 1, 2), (2, 2))
    assert y.dtype == torch.bfloat16
    assert y.sum() == 6


def test_the_token_learns() -> None:
    token = torch.zeros(1, 1, 1, 3, requires_grad=True)
    hide(torch.ones(2, 3, 2, 2), torch.tensor([[1.0, 1.0, 0.0, 0.0]] * 2), token, (2, 2)).sum().backward()
    assert token.grad is not None
    assert token.grad.flatten().tolist() == [4.0, 4.0, 4.0]

"""Tables of positions: an interpolated surface, rows that are left alone, types; sines and cosines."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from birder.errors import ConfigError
from birder.layers.position import resample_positions, sincos_positions


def cubic(distance: float) -> float:
    """The kernel of Keys 1981 with a = -0.75, which torch has without antialiasing."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def weights(before: int, after: int) -> Tensor:
    """What each of the new places takes from the old ones, whose edges are repeated."""
    table = torch.zeros(after, before, dtype=torch.float64)
    for place in range(after):
        centre = (place + 0.5) * before / after - 0.5
        for old in range(int(centre // 1) - 1, int(centre // 1) + 3):
            table[place, min(max(old, 0), before - 1)] += cubic(centre - old)
    return table


def test_it_is_bicubic() -> None:
    table = torch.randn(1, 2 + 3 * 5, 4)
    surface = table[0, 2:].double().reshape(3, 5, 4)
    expected = torch.einsum("ih,jw,hwd->ijd", weights(3, 7), weights(5, 4), surface).reshape(1, 28, 4)
    resampled = resample_positions(table, (3, 5), (7, 4), special=2)
    assert torch.equal(resampled[:, :2], table[:, :2])
    torch.testing.assert_close(resampled[:, 2:].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
def test_it_treats_the_table_as_a_picture(mode: str, antialias: bool) -> None:
    table = torch.randn(1, 6 * 8, 4)
    picture = torch.stack([table[0, row * 8 : row * 8 + 8] for row in range(6)]).permute(2, 0, 1).unsqueeze(0)
    expected = F.interpolate(picture, size=(3, 4), mode=mode, antialias=antialias)
    resampled = resample_positions(table, (6, 8), (3, 4), mode=mode, antialias=antialias)
    for row in range(3):
        for column in range(4):
            torch.testing.assert_close(resampled[0, row * 4 + column], expected[0, :, row, column])


def test_smoothing_makes_a_difference() -> None:
    table = torch.randn(1, 64, 4)
    smooth, sharp = (resample_positions(table, (8, 8), (4, 4), antialias=smooth) for smooth in (True, False))
    assert (smooth - sharp).abs().max() > 0.1


def test_the_same_grid_is_the_same_table() -> None:
    table = torch.randn(1, 1 + 12, 4)
    torch.testing.assert_close(resample_positions(table, (3, 4), (3, 4), special=1), table)


def test_the_type_is_kept_and_the_precision_is_that_of_float32() -> None:
    table = torch.randn(1, 12, 4)
    half = resample_positions(table.bfloat16(), (3, 4), (6, 8))
    assert half.dtype == torch.bfloat16
    exact = resample_positions(table.bfloat16().float(), (3, 4), (6, 8))
    assert torch.equal(half, exact.bfloat16())


def test_gradients_pass() -> None:
    table = torch.randn(1, 12, 4, requires_grad=True)
    resample_positions(table, (3, 4), (6, 8)).sum().backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad.sum(), torch.tensor(48.0 * 4))


@pytest.mark.parametrize("endpoint", [True, False])
def test_sines_and_cosines_of_column_and_row(endpoint: bool) -> None:
    rows, columns, width = 3, 5, 16
    table = sincos_positions((rows, columns), width, endpoint=endpoint)
    assert table.shape == (rows * columns, width)
    assert table.dtype == torch.float32
    for row in range(rows):
        for column in range(columns):
            expected = []
            for place in (column, row):
                angles = [place / 10_000 ** (k / (3 if endpoint else 4)) for k in range(4)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            assert table[row * columns + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_sines_and_cosines_differ_everywhere_and_need_four_channels() -> None:
    table = sincos_positions((7, 9), 8)
    assert torch.cdist(table, table).fill_diagonal_(1.0).min() > 0.01
    assert sincos_positions((1, 1), 4, endpoint=True).tolist() == [[0.0, 1.0, 0.0, 1.0]]
    with pytest.raises(ConfigError, match="multiple of 4 channels, not 6"):
        sincos_positions((2, 2), 6)

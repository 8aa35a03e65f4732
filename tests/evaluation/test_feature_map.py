"""Feature maps as colours, against scikit-learn and numpy."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from birder.errors import NotFinite
from birder.evaluation.feature_map import feature_colours, principal_components, robust_share
from birder.testing import small_network, small_vit


@pytest.mark.parametrize("shape", [(60, 12), (12, 60), (5, 3), (4, 4)])
def test_the_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, dtype=torch.float64) * torch.linspace(1, 3, shape[1], dtype=torch.float64) + 5.0
    # Its convention for the signs is the same one, so they are compared, too.
    expected = PCA(3, svd_solver="full").fit_transform(rows.numpy())
    torch.testing.assert_close(principal_components(rows), torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_the_order_of_the_rows_changes_no_sign() -> None:
    rows = torch.randn(50, 8)
    order = torch.randperm(50)
    torch.testing.assert_close(principal_components(rows[order]), principal_components(rows)[order])


def test_directions_that_are_not_there_are_zero() -> None:
    line = torch.linspace(-1, 1, 9).unsqueeze(1) * torch.randn(1, 6)
    found = principal_components(line)
    assert found.shape == (9, 3)
    assert found[:, 0].abs().max() > 0.1
    assert torch.equal(found[:, 1:], torch.zeros(9, 2).double())
    assert torch.equal(principal_components(torch.randn(1, 6)), torch.zeros(1, 3).double())
    assert principal_components(torch.randn(9, 2)).shape == (9, 3)
    assert torch.equal(principal_components(torch.ones(4, 6)), torch.zeros(4, 3).double())


def test_the_range_is_that_of_numpys_percentiles() -> None:
    values = torch.randn(203, 3, dtype=torch.float64)
    low, high = np.percentile(values.numpy(), [1, 99], axis=0)
    expected = np.clip((values.numpy() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(robust_share(values).numpy(), expected, atol=1e-12)


def test_one_extreme_row_leaves_the_others_apart() -> None:
    values = torch.arange(1000.0).unsqueeze(1)
    changed = values.clone()
    changed[500] = 1e9
    assert (robust_share(changed) - robust_share(values))[torch.arange(1000) != 500].abs().max() < 0.01
    assert robust_share(changed)[500] == 1.0


def test_a_column_without_differences_is_grey() -> None:
    assert torch.equal(robust_share(torch.full((7, 2), 3.0)), torch.full((7, 2), 0.5))


@pytest.mark.parametrize("build", [small_vit, small_network])
def test_colours_are_those_of_the_last_map(build) -> None:
    network = build().eval()
    images = torch.randn(3, 3, *network.size)
    features = list(network.detection_features(images).values())[-1]
    colours = feature_colours(network, images)
    assert colours.shape == (3, 3, *features.shape[2:])
    assert colours.min() >= 0.0 and colours.max() <= 1.0
    # Position by position, picture by picture; a mixed-up axis would give other colours.
    rows = torch.stack([features[b, :, y, x] for b, y, x in np.ndindex(3, *features.shape[2:])])
    share = robust_share(principal_components(rows))
    seen = torch.stack([colours[b, :, y, x] for b, y, x in np.ndindex(3, *features.shape[2:])])
    torch.testing.assert_close(seen, share.float())
    assert torch.equal(feature_colours(network, images), colours)


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(NotFinite, match="features of vit_t16 are no numbers"):
        feature_colours(small_vit().eval(), torch.full((1, 3, 32, 32), torch.inf))

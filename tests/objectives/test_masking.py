"""Random masks: exact numbers, the same masks from the same generator, and the distribution of slow formulations."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.objectives.masking import (
    block_masks,
    context_and_targets,
    fixed_block_masks,
    positions,
    random_counts,
    rolled_block_masks,
    uniform_masks,
    visible_first,
    with_count,
)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def blocks_of_random_counts(num_images, grid, generator=None):
    return block_masks(random_counts(num_images, 16, 98, generator), grid, generator=generator)


def rolled(num_images, grid, hidden=60, **options):
    return rolled_block_masks(torch.full((num_images,), hidden), grid, **options)


def contexts_and_targets_as_masks(num_images, grid, generator=None):
    return torch.cat([part.flatten(1) for part in context_and_targets(num_images, grid, generator=generator)], dim=1)


DRAWS = {
    "uniform": partial(uniform_masks, ratio=0.6),
    "cells": partial(uniform_masks, ratio=0.6, cell=2),
    "blocks": blocks_of_random_counts,
    "fixed blocks": partial(fixed_block_masks, ratio=0.6),
    "rolled block": rolled,
    "context and targets": contexts_and_targets_as_masks,
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
every_mask = pytest.mark.parametrize("draw", list(DRAWS.values())[:-1], ids=list(DRAWS)[:-1])


def edges(masks, grid):
    """Neighbours of which one is hidden, by image: how ragged a mask is."""
    maps = np.asarray(masks).reshape(-1, *grid)
    return (maps[:, 1:] != maps[:, :-1]).sum(axis=(1, 2)) + (maps[:, :, 1:] != maps[:, :, :-1]).sum(axis=(1, 2))


def expect_same_mean(found, expected):
    """Two samples agree within five standard errors."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    error = math.sqrt(found.var() / len(found) + expected.var() / len(expected))
    assert abs(found.mean() - expected.mean()) <= 5 * error + 1e-9, (found.mean(), expected.mean(), error)


def expect_same_distribution(found, slow, grid):
    """Masks of two sources agree in how much they hide, how ragged they are, and where they hide."""
    found, slow = np.asarray(found).reshape(-1, *grid), np.asarray(slow).reshape(-1, *grid)
    for number in (
        lambda masks: masks.sum(axis=(1, 2)),
        lambda masks: edges(masks, grid),
        lambda masks: edges(masks, grid) ** 2,
        lambda masks: masks[:, 0].sum(axis=1),
        lambda masks: masks[:, :, -1].sum(axis=1),
        lambda masks: masks.any(axis=2).sum(axis=1),
    ):
        expect_same_mean(number(found), number(slow))


# What holds for all of them.


@every_draw
def test_the_generator_alone_decides(draw):
    first = draw(4, (14, 14), generator=generator(1))
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(draw(4, (14, 14), generator=generator(1)), first)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert draw(4, (14, 14), generator=generator(2)).tolist() != first.tolist()


@every_draw
def test_a_generator_goes_on_where_its_state_was_saved(draw):
    source = generator()
    draw(3, (12, 8), generator=source)
    state = source.get_state()
    following = draw(3, (12, 8), generator=source)
    assert torch.equal(draw(3, (12, 8), generator=generator().set_state(state)), following)


@every_draw
def test_without_a_generator_torch_decides(draw):
    torch.manual_seed(7)
    first, second = draw(2, (14, 14)), draw(2, (14, 14))
    torch.manual_seed(7)
    assert torch.equal(draw(2, (14, 14)), first)
    assert first.tolist() != second.tolist()
    assert torch.equal(draw(2, (14, 14), generator=generator(7)), first)


@every_mask
def test_masks_are_rows_of_booleans_and_independent_of_each_other(draw):
    masks = draw(600, (14, 10), generator=generator())
    assert masks.shape == (600, 140)
    assert masks.dtype == torch.bool
    deviation = masks.double() - masks.double().mean(dim=0)
    products = (deviation[1:] * deviation[:-1]).mean(dim=1).numpy()
    assert abs(products.mean()) < 5 * products.std() / math.sqrt(len(products))


# Uniform masks.


@pytest.mark.parametrize(
    ("grid", "ratio", "visible"),
    [
        ((14, 14), 0.75, 49),
        ((7, 7), 0.6, 19),
        ((8, 12), 0.6, 38),
        ((1, 9), 0.5, 4),
        ((3, 5), 0.0, 15),
        ((7, 7), 0.97, 1),
    ],
)
def test_uniform_masks_leave_the_exact_number(grid, ratio, visible):
    masks = uniform_masks(5, grid, ratio)
    assert (~masks).sum(dim=1).tolist() == [visible] * 5


def test_uniform_masks_hide_the_largest_of_random_numbers():
    masks = uniform_masks(6, (14, 14), 0.75, generator=generator())
    noise = torch.rand(6, 196, generator=generator())
    for mask, row in zip(masks, noise, strict=True):
        assert set(mask.nonzero().flatten().tolist()) == set(row.argsort()[49:].tolist())


def test_cells_are_hidden_as_a_whole():
    masks = uniform_masks(50, (12, 8), 0.6, cell=2, generator=generator())
    cells = masks.reshape(50, 6, 2, 4, 2)
    assert torch.equal(cells, cells[:, :, :1, :, :1].expand_as(cells))
    assert torch.equal(cells[:, :, 0, :, 0].flatten(1), uniform_masks(50, (6, 4), 0.6, generator=generator()))
    assert masks.sum(dim=1).tolist() == [4 * (24 - 9)] * 50


def test_cells_that_do_not_divide_the_grid_are_cut_off():
    masks = uniform_masks(50, (7, 9), 0.5, cell=2, generator=generator())
    whole = uniform_masks(50, (8, 10), 0.5, cell=2, generator=generator()).reshape(50, 8, 10)
    assert torch.equal(masks, whole[:, :7, :9].flatten(1))


# Masks of rectangles until enough is hidden.


def slow_block_mask(hidden, grid, smallest, aspect, source):
    """One image, one number after the other."""
    mask = np.zeros(grid, dtype=bool)
    tries = 0
    while (left := hidden - mask.sum()) > 0 and tries < 10:
        tries += 1
        area = source.uniform(min(smallest, left), left)
        ratio = math.exp(source.uniform(math.log(aspect[0]), math.log(aspect[1])))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height > grid[0] or width > grid[1]:
            continue
        top, start = source.randint(0, grid[0] - height), source.randint(0, grid[1] - width)
        larger = mask.copy()
        larger[top : top + height, start : start + width] = True
        if mask.sum() < larger.sum() <= hidden:
            mask, tries = larger, 0
    return mask


@pytest.mark.parametrize(("grid", "hidden", "smallest"), [((14, 14), 80, 16), ((8, 12), 40, 4), ((6, 6), 35, 8)])
def test_block_masks_are_those_of_one_rectangle_after_the_other(grid, hidden, smallest):
    masks = block_masks(torch.full((1000,), hidden), grid, smallest=smallest, aspect=(0.33, 3), generator=generator())
    source = random.Random(1)
    slow = [slow_block_mask(hidden, grid, smallest, (0.33, 3), source) for _ in range(1000)]
    expect_same_distribution(masks, slow, grid)


def test_block_masks_hide_at_most_what_is_asked_of_each_image():
    hidden = torch.tensor([0, 1, 16, 60, 98] * 40)
    masks = block_masks(hidden, (14, 14), generator=generator())
    missing = hidden - masks.sum(dim=1)
    assert missing.min() == 0
    assert (missing == 0).float().mean() > 0.95
    assert missing.max() <= 16


def test_block_masks_fit_a_grid_of_one_row():
    masks = block_masks(torch.full((200,), 6), (1, 20), smallest=2, generator=generator())
    assert masks.sum(dim=1).max() == 6
    assert masks.sum(dim=1).float().mean() > 5, "few rectangles are flat enough, but one of ten mostly is"
    assert masks.any(dim=0).all()


def test_rectangles_that_are_too_high_or_too_wide_do_not_count():
    for aspect, grid in (((4, 4), (10, 20)), ((0.25, 0.25), (20, 10))):
        assert not block_masks(torch.full((20,), 36), grid, smallest=36, aspect=aspect).any()


def test_a_first_block_has_the_area_and_shape_that_are_asked_for():
    masks = block_masks(torch.full((300,), 36), (20, 20), smallest=36, aspect=(4, 4), generator=generator())
    maps = masks.reshape(300, 20, 20)
    one = masks.sum(dim=1) == 36
    assert one.all()
    assert set(maps.any(dim=2).sum(dim=1).tolist()) == {12}
    assert set(maps.any(dim=1).sum(dim=1).tolist()) == {3}
    assert maps.any(dim=2).any(dim=0).all(), "it reaches every row"
    assert maps.any(dim=1).any(dim=0).all(), "it reaches every column"


def test_random_counts_reach_both_ends_equally_often():
    counts = random_counts(6000, 3, 8, generator())
    assert counts.dtype == torch.int64
    frequency = torch.bincount(counts, minlength=9)[3:] / 6000
    assert frequency.sum() == 1.0
    assert frequency.tolist() == pytest.approx([1 / 6] * 6, abs=5 * math.sqrt(5 / 36 / 6000))


# Masks of squares of one size.


def slow_fixed_block_mask(count, num_blocks, block, grid, source):
    """One image: squares, then single positions until the number is right."""
    mask = np.zeros(grid, dtype=bool)
    before, behind = (block - 1) // 2, block // 2
    for _ in range(num_blocks):
        row, column = source.randrange(grid[0]), source.randrange(grid[1])
        mask[max(0, row - before) : row + behind + 1, max(0, column - before) : column + behind + 1] = True
    while mask.sum() != count:
        wrong = np.argwhere(mask if mask.sum() > count else ~mask)
        row, column = wrong[source.randrange(len(wrong))]
        mask[row, column] = not mask[row, column]
    return mask


@pytest.mark.parametrize(
    ("grid", "options", "count", "num_blocks"),
    [
        ((14, 14), {"ratio": 0.6}, 117, 13),
        ((14, 14), {"ratio": 0.8, "adjust": 0.07, "inverse": True}, 39, 5),
        ((6, 9), {"ratio": 0.5, "block": 2}, 27, 6),
    ],
)
def test_fixed_block_masks_are_those_of_one_square_after_the_other(grid, options, count, num_blocks):
    masks = fixed_block_masks(1000, grid, generator=generator(), **options)
    squares = ~masks if options.get("inverse") else masks
    assert squares.sum(dim=1).tolist() == [count] * 1000
    source = random.Random(1)
    slow = [slow_fixed_block_mask(count, num_blocks, options.get("block", 3), grid, source) for _ in range(1000)]
    expect_same_distribution(squares, slow, grid)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.96])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("grid", [(5, 5), (1, 25)])
@pytest.mark.parametrize("adjust", [-0.5, 0.1, 2.0])
def test_fixed_block_masks_hide_the_exact_number_in_any_case(ratio, inverse, grid, adjust):
    masks = fixed_block_masks(20, grid, ratio, inverse=inverse, adjust=adjust)
    expected = 25 - int(25 * (1 - ratio)) if inverse else int(25 * ratio)
    assert masks.sum(dim=1).tolist() == [expected] * 20


# Masks of one rectangle that goes on at the other side.


def slow_rolled_block_mask(hidden, grid, source):
    """One image: a rectangle in the corner, cut to the number, then rolled."""
    low = max(0.5, hidden / grid[1] ** 2)
    high = min(2.0, grid[0] ** 2 / hidden)
    ratio = math.exp(source.uniform(math.log(low), math.log(high)))
    height, width = math.ceil(math.sqrt(hidden * ratio)), math.ceil(math.sqrt(hidden / ratio))
    mask = np.zeros(grid, dtype=bool)
    mask[:height, :width] = True
    mask.flat[np.flatnonzero(mask)[hidden:]] = False
    return np.roll(mask, (source.randrange(grid[0]), source.randrange(grid[1])), axis=(0, 1))


@pytest.mark.parametrize(("grid", "hidden"), [((14, 14), 60), ((14, 14), 150), ((8, 12), 40)])
def test_rolled_block_masks_are_rolled_rectangles(grid, hidden):
    masks = rolled(1500, grid, hidden, generator=generator())
    assert masks.sum(dim=1).tolist() == [hidden] * 1500
    source = random.Random(1)
    expect_same_distribution(masks, [slow_rolled_block_mask(hidden, grid, source) for _ in range(1500)], grid)


def test_a_rolled_block_is_everywhere_equally_often():
    frequency = rolled(4000, (6, 8), 12, generator=generator()).double().mean(dim=0)
    assert (frequency - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 4000)


def test_the_inverse_of_a_rolled_block_leaves_the_block_visible():
    inverse = rolled(50, (14, 14), 128, inverse=True, generator=generator())
    assert torch.equal(~inverse, rolled(50, (14, 14), 196 - 128, generator=generator()))


@pytest.mark.parametrize("grid", [(1, 10), (10, 1), (2, 5), (7, 7), (3, 16)])
def test_rolled_block_masks_hide_any_number_on_any_grid(grid):
    length = grid[0] * grid[1]
    hidden = torch.arange(length + 1).repeat(20)
    assert torch.equal(rolled_block_masks(hidden, grid).sum(dim=1), hidden)
    assert torch.equal(rolled_block_masks(hidden, grid, inverse=True).sum(dim=1), hidden)


# Context and targets.


def slow_context_and_targets(grid, source):
    """Size of the context of one image, and its targets as a mask."""

    def sides(scale, aspect):
        area, ratio = grid[0] * grid[1] * source.uniform(*scale), source.uniform(*aspect)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(height, grid[0] - 1), min(width, grid[1] - 1)

    def placed(height, width):
        top, start = source.randint(0, grid[0] - height), source.randint(0, grid[1] - width)
        mask = np.zeros(grid, dtype=bool)
        mask[top : top + height, start : start + width] = True
        return mask

    large, small = sides((0.85, 1.0), (1.0, 1.0)), sides((0.15, 0.2), (0.75, 1.5))
    targets = np.any([placed(*small) for _ in range(4)], axis=0)
    return placed(*large) & ~targets, targets


def as_mask(places, length):
    return torch.zeros(length, dtype=torch.bool).index_fill(0, places.flatten(), True)


@pytest.mark.parametrize("grid", [(14, 14), (10, 16)])
def test_contexts_and_targets_are_those_of_one_block_after_the_other(grid):
    length, source = grid[0] * grid[1], generator()
    pairs = [context_and_targets(1, grid, generator=source) for _ in range(600)]
    contexts = torch.stack([as_mask(context, length) for context, _ in pairs])
    targets = torch.stack([as_mask(target, length) for _, target in pairs])
    slow = random.Random(1)
    slow_contexts, slow_targets = zip(*(slow_context_and_targets(grid, slow) for _ in range(600)), strict=True)
    expect_same_distribution(contexts, slow_contexts, grid)
    expect_same_distribution(targets, slow_targets, grid)


def test_contexts_do_not_see_their_targets():
    for seed in range(20):
        contexts, targets = context_and_targets(32, (14, 14), generator=generator(seed))
        assert contexts.shape[0] == 32
        assert contexts.shape[1] >= 10
        assert targets.shape[:2] == (32, 4)
        for context, target in zip(contexts, targets, strict=True):
            assert not set(context.tolist()) & set(target.flatten().tolist())
            assert context.tolist() == sorted(set(context.tolist()))


def test_targets_are_rectangles_of_one_size():
    _, targets = context_and_targets(16, (14, 14), num_targets=3, generator=generator())
    corners = targets[:, :, :1]
    assert torch.equal(targets - corners, (targets - corners)[:1, :1].expand_as(targets))
    rows, columns = targets // 14, targets % 14
    height = rows.amax(dim=2) - rows.amin(dim=2) + 1
    width = columns.amax(dim=2) - columns.amin(dim=2) + 1
    assert (height * width == targets.shape[2]).all()
    assert 0.15 * 196 - 4 <= targets.shape[2] <= 0.2 * 196 + 4
    assert len(set(corners.flatten().tolist())) > 10, "they are not all at the same place"


def test_a_context_with_too_little_left_is_drawn_again():
    sizes = []
    for seed in range(30):
        contexts, targets = context_and_targets(16, (7, 7), min_context=14, generator=generator(seed))
        sizes.append(contexts.shape[1])
        for context, target in zip(contexts, targets, strict=True):
            assert not set(context.tolist()) & set(target.flatten().tolist())
    assert min(sizes) == 14


def test_sizes_of_which_no_layout_works_are_drawn_again_too():
    """On a grid of 5 x 5, one of ten pairs of sizes leaves 10 positions hardly ever."""
    refused = 0
    for seed in range(40):
        contexts, _ = context_and_targets(64, (5, 5), generator=generator(seed))
        assert contexts.shape[1] >= 10
        try:
            context_and_targets(64, (5, 5), most_sizes=1, generator=generator(seed))
        except ConfigError:
            refused += 1
    assert refused > 0


# Numbers and places.


def test_with_count_takes_away_or_adds():
    mask = uniform_masks(400, (6, 6), 0.5, generator=generator())
    fewer, more = with_count(mask, 5, generator(2)), with_count(mask, 30, generator(2))
    assert fewer.sum(dim=1).tolist() == [5] * 400
    assert more.sum(dim=1).tolist() == [30] * 400
    assert not (fewer & ~mask).any()
    assert not (mask & ~more).any()
    assert torch.equal(with_count(mask, 18), mask)
    chance = fewer.double().mean(dim=0)
    assert (chance - 5 / 36).abs().max() < 5 * math.sqrt(5 / 36 * 31 / 36 / 400)


def test_positions_are_those_of_the_mask_in_order():
    mask = torch.tensor([[True, False, False, True], [False, True, True, False]])
    assert positions(mask).tolist() == [[0, 3], [1, 2]]
    assert positions(~mask).tolist() == [[1, 2], [0, 3]]
    assert positions(mask[None]).tolist() == [[[0, 3], [1, 2]]]


def test_visible_first_puts_tokens_back():
    mask = uniform_masks(5, (4, 6), 0.7, generator=generator())
    visible, restore = visible_first(mask)
    assert torch.equal(visible, positions(~mask))
    tokens = torch.arange(24).expand(5, -1)
    apart = torch.cat([tokens.gather(1, visible), torch.full((5, 24 - visible.shape[1]), -1)], dim=1)
    assert torch.equal(apart.gather(1, restore), tokens.masked_fill(mask, -1))


# Requests that cannot be met.


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: uniform_masks(2, (7, 7), 0.99), "a share of 0.99 of 7 x 7 positions"),
        (lambda: uniform_masks(2, (7, 7), 1.0), "leave at least one visible"),
        (lambda: uniform_masks(2, (7, 7), -0.1), "must be 0 or more"),
        (lambda: uniform_masks(2, (7, 7), 0.6, cell=0), "side of a cell must be 1 or more positions, not 0"),
        (lambda: uniform_masks(2, (7, 7), 0.6, cell=7), "a share of 0.6 of 1 x 1"),
        (lambda: block_masks(torch.tensor([3, 50]), (7, 7)), "3 to 50 hidden positions do not fit a grid of 7 x 7"),
        (lambda: block_masks(torch.tensor([3]), (7, 7), aspect=(2.0, 1.0)), r"aspect: .* not \(2.0, 1.0\)"),
        (lambda: fixed_block_masks(2, (7, 7), 0.99), "a share of 0.99"),
        (lambda: fixed_block_masks(2, (7, 7), 0.5, block=0), "side of a block must be 1 or more"),
        (lambda: rolled_block_masks(torch.tensor([-1]), (7, 7)), "-1 to -1 hidden positions"),
        (lambda: rolled_block_masks(torch.tensor([50]), (7, 7), inverse=True), "50 to 50 hidden positions"),
        (lambda: rolled_block_masks(torch.tensor([5]), (7, 7), aspect=(0.0, 1.0)), "aspect: .* above 0, not"),
        (lambda: context_and_targets(2, (4, 4)), "4 targets of .* on a grid of 4 x 4: fewer or smaller targets"),
        (lambda: context_and_targets(2, (9, 9), target_scale=(0.2, 1.1)), "target_scale: .* at most 1, not"),
        (
            lambda: context_and_targets(2, (9, 9), num_targets=0),
            "num_targets, min_context and most_sizes must be 1 or more",
        ),
        (lambda: context_and_targets(2, (9, 9), most_sizes=0), "num_targets, min_context and most_sizes must be 1"),
        (lambda: random_counts(2, 5, 4), "from 5 to 4 is no range"),
        (lambda: with_count(torch.ones(2, 9, dtype=torch.bool), 10), "9 positions cannot hide 10"),
        (lambda: positions(torch.tensor([[True, False], [True, True]])), "from 1 to 2 positions"),
        (lambda: visible_first(uniform_masks(50, (7, 9), 0.5, cell=2)), "cells that divide the grid"),
    ],
)
def test_what_cannot_be_is_refused(request_, message):
    with pytest.raises(ConfigError, match=message):
        request_()

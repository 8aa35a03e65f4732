"""Which parts of a picture are hidden: random masks of the methods that learn from masked images.

Every random number comes from the generator that is given, or else from torch's default one on the CPU: the state of
that generator fixes the masks. The masks are on the generator's device.

Shapes: B images, a grid of rows and columns, L = rows * columns positions, row by row. A mask is (B, L), bool, True
where hidden.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from birder.errors import ConfigError

Grid = tuple[int, int]
Range = tuple[float, float]

_TRIES = 10
"""Rectangles in a row that may not fit before a block mask stays as it is."""
_ROUNDS = 100
"""Layouts of context and targets of one size to draw for an image before giving up."""


def uniform_masks(
    num_images: int, grid: Grid, ratio: float, *, cell: int = 1, generator: Generator | None = None
) -> Tensor:
    """Masks that hide each position with the same chance, and the same number in each image.

    Paper: He et al. 2021, https://arxiv.org/abs/2111.06377 (MAE)

    Args:
        num_images: B.
        grid: Rows and columns.
        ratio: Share to hide; int(L * (1 - ratio)) positions stay visible.
        cell: Side of the squares that are hidden or visible as a whole (SimMIM). On a grid that cells do not divide,
            those at the right and at the bottom are cut off: only then the numbers differ between the images.
        generator: Source of the random numbers.

    Raises:
        ConfigError: A ratio that is no share or hides everything, or cells smaller than a position.
    """
    if cell < 1:
        raise ConfigError(f"the side of a cell must be 1 or more positions, not {cell}")
    rows, columns = grid
    cells = (math.ceil(rows / cell), math.ceil(columns / cell))
    visible = _smallest(_uniform(generator, num_images, cells[0] * cells[1]), _num_visible(ratio, cells))
    mask = ~visible.unflatten(1, cells)  # (B, rows of cells, columns of cells)
    mask = mask.repeat_interleave(cell, dim=1).repeat_interleave(cell, dim=2)
    return mask[:, :rows, :columns].flatten(1)


def block_masks(
    hidden: Tensor,
    grid: Grid,
    *,
    smallest: int = 16,
    aspect: Range = (0.3, 1 / 0.3),
    generator: Generator | None = None,
) -> Tensor:
    """Masks of rectangles that may overlap, drawn until enough is hidden.

    An image stays with less than asked when ten rectangles in a row cover nothing new or too much, or are higher or
    wider than the grid.

    Paper: Bao et al. 2021, https://arxiv.org/abs/2106.08254 (BEiT, algorithm 1)

    Args:
        hidden: (B,), whole numbers: how many positions to hide in each image, such as ``random_counts`` gives.
        grid: Rows and columns.
        smallest: Least area of a rectangle, in positions, except for the last, which has the area that is left.
        aspect: Least and greatest height / width of a rectangle.
        generator: Source of the random numbers.

    Raises:
        ConfigError: More to hide than there is, or ranges that are none.
    """
    _check_counts(hidden, grid)
    _check_range("aspect", aspect)
    left = hidden.to(_device(generator))
    whole = torch.tensor(grid, device=left.device)
    failures = torch.zeros_like(left)
    mask = torch.zeros(len(left), *grid, dtype=torch.bool, device=left.device)
    while (active := (left > 0) & (failures < _TRIES)).any():
        area = _between(left.clamp(max=smallest), left, _uniform(generator, len(left)))
        sides = _sides(area, _log_between(*aspect, _uniform(generator, len(left))))
        new = _placed(sides, grid, generator) & ~mask  # (B, rows, columns)
        count = new.sum(dim=(1, 2))
        fits = active & (sides <= whole).all(dim=1) & (count > 0) & (count <= left)
        mask |= new & fits[:, None, None]
        left = left - count * fits
        failures = (failures + 1) * ~fits
    return mask.flatten(1)


def fixed_block_masks(
    num_images: int,
    grid: Grid,
    ratio: float,
    *,
    block: int = 3,
    adjust: float = 0.0,
    inverse: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Masks of squares of one size at random places, with the same number of hidden positions in each image.

    The squares may overlap and reach over the border; single random positions then make up the exact number.

    Paper: Baevski et al. 2022, https://arxiv.org/abs/2212.07525 (data2vec 2.0)

    Args:
        num_images: B.
        grid: Rows and columns.
        ratio: Share to hide, rounded down; with ``inverse`` the visible share is.
        block: Side of a square.
        adjust: Added to the share that the squares would cover if they did not overlap.
        inverse: The squares are what stays visible.
        generator: Source of the random numbers.

    Raises:
        ConfigError: A ratio that is no share or hides everything, or squares smaller than a position.
    """
    if block < 1:
        raise ConfigError(f"the side of a block must be 1 or more positions, not {block}")
    length = grid[0] * grid[1]
    visible = _num_visible(ratio, grid)
    share, count = (1 - ratio, visible) if inverse else (ratio, int(length * ratio))
    num_blocks = max(0, int(length * (share + adjust) / block**2))
    centres = (_uniform(generator, num_images, num_blocks) * length).long()
    covered = torch.zeros(num_images, length, device=centres.device).scatter_(1, centres, 1.0).unflatten(1, grid)
    covered = F.max_pool2d(covered, block, stride=1, padding=block // 2)[:, : grid[0], : grid[1]]
    mask = with_count(covered.flatten(1).bool(), count, generator)
    return ~mask if inverse else mask


def rolled_block_masks(
    hidden: Tensor,
    grid: Grid,
    *,
    aspect: Range = (0.5, 2.0),
    inverse: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Masks of one rectangle each, which goes on at the opposite border where it leaves the grid.

    So each position is hidden equally often. The last row of the rectangle may be incomplete, for the exact number.

    Paper: Darcet et al. 2025, https://arxiv.org/abs/2502.08769 (CAPI);
        Venkataramanan et al. 2025, https://arxiv.org/abs/2507.14137 (Franca)

    Args:
        hidden: (B,), whole numbers: how many positions to hide in each image.
        grid: Rows and columns.
        aspect: Least and greatest height / width, as far as the grid allows them for that number.
        inverse: The rectangle is what stays visible.
        generator: Source of the random numbers.

    Raises:
        ConfigError: More to hide than there is, or a range that is none.
    """
    _check_counts(hidden, grid)
    _check_range("aspect", aspect)
    rows, columns = grid
    area = hidden.to(_device(generator))
    if inverse:
        area = rows * columns - area
    # A rectangle of that area is at most as high and as wide as the grid.
    flattest, steepest = area / columns**2, rows**2 / area.clamp(min=1)
    low, high = (torch.full_like(flattest, bound).clamp(flattest, steepest) for bound in aspect)
    ratio = _log_between(low, high, _uniform(generator, len(area)))
    # The last limit is for rounding errors alone.
    width = (area / ratio).sqrt().ceil().long().clamp(max=columns)[:, None, None]
    top, start = (_uniform(generator, 2, len(area)) * torch.tensor([[rows], [columns]], device=area.device)).long()
    down = (torch.arange(rows, device=area.device)[:, None] - top[:, None, None]) % rows  # (B, rows, 1)
    right = (torch.arange(columns, device=area.device) - start[:, None, None]) % columns  # (B, 1, columns)
    block = (right < width) & (down * width + right < area[:, None, None])
    return (~block if inverse else block).flatten(1)


def context_and_targets(
    num_images: int,
    grid: Grid,
    *,
    num_targets: int = 4,
    context_scale: Range = (0.85, 1.0),
    target_scale: Range = (0.15, 0.2),
    target_aspect: Range = (0.75, 1.5),
    min_context: int = 10,
    most_sizes: int = 30,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Positions of a large block without several small ones, and of the small ones: (B, K) and (B, T, K'), int64.

    In one call all contexts start from the same size, and all targets have the same size. As the targets take different
    numbers away, the longer contexts lose their last positions.

    Paper: Assran et al. 2023, https://arxiv.org/abs/2301.08243 (I-JEPA)
    Differs: In the authors' code the context overlaps targets when they leave too little of it; here the blocks of
        that image are drawn again. Where that is of no use, as on a small grid with large targets, so are the sizes.

    Args:
        num_images: B.
        grid: Rows and columns.
        num_targets: T; they may overlap each other.
        context_scale: Least and greatest share of the grid in the large block, a square as far as it fits. All
            blocks are less high and less wide than the grid.
        target_scale: Least and greatest share of the grid in each target.
        target_aspect: Least and greatest height / width of a target.
        min_context: Least number of positions in a context.
        most_sizes: Pairs of sizes to draw before giving up.
        generator: Source of the random numbers.

    Raises:
        ConfigError: Ranges that are none, or targets that leave too little of the context.
    """
    _check_range("context_scale", context_scale, highest=1.0)
    _check_range("target_scale", target_scale, highest=1.0)
    _check_range("target_aspect", target_aspect)
    if min(num_targets, min_context, most_sizes) < 1:
        given = f"{num_targets}, {min_context}, {most_sizes}"
        raise ConfigError(f"num_targets, min_context and most_sizes must be 1 or more: {given}")
    for _ in range(most_sizes):
        large = _block_size(grid, context_scale, (1.0, 1.0), generator)
        small = _block_size(grid, target_scale, target_aspect, generator)
        context = torch.zeros(num_images, *grid, dtype=torch.bool, device=_device(generator))
        targets = context[:, None].repeat(1, num_targets, 1, 1)
        for _ in range(_ROUNDS):
            blocks = _placed(small.expand(num_images, num_targets, 2), grid, generator)
            block = _placed(large.expand(num_images, 2), grid, generator)
            again = (context.sum(dim=(1, 2)) < min_context)[:, None, None]  # in the first round all of them
            targets = torch.where(again[:, None], blocks, targets)
            context = torch.where(again, block & ~blocks.any(dim=1), context)
            shortest = int(context.sum(dim=(1, 2)).min())
            if shortest >= min_context:
                return _first(context.flatten(1), shortest), positions(targets.flatten(2))
    raise ConfigError(
        f"{num_targets} targets of {_by(small)} leave less than {min_context} positions of a context of {_by(large)} "
        f"on a grid of {_by(grid)}: fewer or smaller targets, or a finer grid, leave more"
    )


def random_counts(num_images: int, low: int, high: int, generator: Generator | None = None) -> Tensor:
    """How many positions to hide in each image: whole numbers from low to high, both included, (B,).

    Raises:
        ConfigError: Numbers that are no range.
    """
    if not 0 <= low <= high:
        raise ConfigError(f"from {low} to {high} is no range of numbers of positions")
    return low + (_uniform(generator, num_images) * (high - low + 1)).long()


def with_count(mask: Tensor, count: int, generator: Generator | None = None) -> Tensor:
    """Take random positions away from the masks, or add some, until each has ``count``: (B, L) -> (B, L).

    Raises:
        ConfigError: There are fewer positions.
    """
    if not 0 <= count <= mask.shape[1]:
        raise ConfigError(f"a mask of {mask.shape[1]} positions cannot hide {count} of them")
    # Random numbers lie in [0, 1), so that what was hidden comes first.
    return _smallest(_uniform(generator, *mask.shape) + ~mask, count)


def positions(mask: Tensor) -> Tensor:
    """Where masks are True, in ascending order, (..., L) -> (..., K), int64; ``positions(~mask)`` is what is visible.

    Raises:
        ConfigError: The numbers differ between the masks.
    """
    return _first(mask, _common_count(mask))


def visible_first(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The visible positions (B, K), and the order that puts back the rest behind them (B, L), int64.

    ``torch.cat([visible, hidden], dim=1)`` of tokens (B, K, D) and (B, L - K, D), gathered by that order, is the grid
    row by row.

    Raises:
        ConfigError: The numbers of visible positions differ between the masks.
    """
    order = _first(~mask, mask.shape[1])
    return order[:, : _common_count(~mask)], order.argsort(dim=1)


def _device(generator: Generator | None) -> torch.device:
    return generator.device if generator else torch.device("cpu")


def _uniform(generator: Generator | None, *size: int) -> Tensor:
    """Random numbers in [0, 1), all that this module draws."""
    return torch.rand(size, generator=generator, device=_device(generator), dtype=torch.float32)


def _between(low: Tensor | float, high: Tensor | float, draw: Tensor) -> Tensor:
    return low + (high - low) * draw


def _log_between(low: Tensor | float, high: Tensor | float, draw: Tensor) -> Tensor:
    """Between the limits so that 1/2 to 1, say, is as frequent as 1 to 2."""
    return low * (high / low) ** draw


def _sides(area: Tensor, aspect: Tensor) -> Tensor:
    """Height and width, in whole positions, of rectangles of about that area and height / width, (...) -> (..., 2)."""
    return torch.stack([area * aspect, area / aspect], dim=-1).sqrt().round().long()


def _block_size(grid: Grid, scale: Range, aspect: Range, generator: Generator | None) -> Tensor:
    """A random height and width, (2,), smaller than those of the grid."""
    share, shape = _uniform(generator, 2)
    sides = _sides(grid[0] * grid[1] * _between(*scale, share), _between(*aspect, shape))
    return sides.minimum(torch.tensor(grid, device=sides.device) - 1).clamp(min=1)


def _placed(sides: Tensor, grid: Grid, generator: Generator | None) -> Tensor:
    """Rectangles of these sides at random places inside the grid, (..., 2) -> (..., rows, columns), bool."""
    inside = []
    for side, length in zip(sides.unbind(-1), grid, strict=True):
        start = (_uniform(generator, *side.shape) * (length - side + 1).clamp(min=1)).long()
        place = torch.arange(length, device=side.device) - start[..., None]  # (..., length)
        inside.append((place >= 0) & (place < side[..., None]))
    down, right = inside
    return down[..., :, None] & right[..., None, :]


def _smallest(values: Tensor, count: int) -> Tensor:
    """True at the ``count`` smallest values of each row, (B, L) -> (B, L)."""
    places = values.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, places, True)


def _first(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` places, those that are True before the others: (..., L) -> (..., count)."""
    return (~mask).byte().argsort(dim=-1, stable=True)[..., :count]


def _common_count(mask: Tensor) -> int:
    counts = mask.sum(dim=-1)
    least, most = int(counts.min()), int(counts.max())
    if least < most:
        raise ConfigError(
            f"masks have from {least} to {most} positions, and one tensor takes the same number of each: use masks of "
            "an exact number, with cells that divide the grid"
        )
    return least


def _num_visible(ratio: float, grid: Grid) -> int:
    length = grid[0] * grid[1]
    visible = int(length * (1 - ratio))
    if not 0 <= ratio < 1 or visible < 1:
        raise ConfigError(
            f"hiding a share of {ratio:g} of {_by(grid)} positions or cells: the share must be 0 or more, "
            "and leave at least one visible"
        )
    return visible


def _check_counts(hidden: Tensor, grid: Grid) -> None:
    if hidden.numel() and not 0 <= int(hidden.min()) <= int(hidden.max()) <= grid[0] * grid[1]:
        raise ConfigError(
            f"{int(hidden.min())} to {int(hidden.max())} hidden positions do not fit a grid of {_by(grid)}"
        )


def _check_range(name: str, limits: Range, highest: float = math.inf) -> None:
    if not 0 < limits[0] <= limits[1] <= highest:
        most = "" if highest == math.inf else f" and at most {highest:g}"
        raise ConfigError(f"{name}: must be (least, greatest), above 0{most}, not {limits}")


def _by(sides: Grid | Tensor) -> str:
    return " x ".join(str(int(side)) for side in sides)

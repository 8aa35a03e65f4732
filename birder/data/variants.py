"""What training pictures look like to the network: a sheet of originals and of what augmentation makes of them."""

from PIL import Image
from torch import Tensor

from birder.data.augment import AugmentOptions, training_transform
from birder.data.loader import TrainingSet
from birder.data.order import Key, epoch_order
from birder.data.samples import Samples
from birder.data.sheet import Row, sheet_of_rows
from birder.errors import ConfigError, DataError, ImageError


def variants_sheet(
    samples: Samples, options: AugmentOptions, *, size: int = 224, pictures: int = 8, variants: int = 6, seed: int = 0
) -> Image.Image:
    """An RGB picture with a row for each of some pictures: the original, then what it is in the first epochs.

    The variants are those that a training with these options, this size and this seed sees.

    Args:
        samples: The pictures, from which some are drawn.
        options: How pictures are varied.
        size: Height and width that the network takes, in pixels.
        pictures: How many rows.
        variants: How many variants of each.
        seed: Where all random numbers start.

    Raises:
        ConfigError: A number that makes no sense.
        DataError: Not one of the pictures can be read.
        MissingPackage: torchvision is not installed.
    """
    if min(size, pictures, variants) < 1 or seed < 0:
        raise ConfigError("size, pictures and variants must be 1 or more, seed 0 or more")
    training = TrainingSet(samples, training_transform((size, size), options), seed)
    names = {label: name for name, label in samples.class_to_idx.items()}
    rows: list[Row] = []
    for index in epoch_order(len(samples), seed, 0).tolist():
        try:
            original = samples.read(index)
        except ImageError:  # another one will do
            continue
        seen = (training[Key(epoch, index)][0] for epoch in range(variants))
        changed = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in seen if isinstance(pixels, Tensor)]
        name = names[int(samples.labels[index])]
        rows.append(Row(title=f"{name}, {samples.name(index)}", pictures=[original, *changed]))
        if len(rows) == pictures:
            break
    if not rows:
        raise DataError(f"none of the {len(samples)} pictures can be read")
    return sheet_of_rows(rows)

"""What a network is shown: from pictures in files to batches on the device."""

import torch

from birder.data.augment import Views, training_transform
from birder.data.loader import Pictures
from birder.data.transforms import InferenceTransform
from birder.distributed import world_size
from birder.objectives.base import Batch
from birder.training.recipe import Recipe


class Feed:
    """Batches of a run, in the views that its objective wants."""

    def __init__(self, recipe: Recipe, transform: InferenceTransform, device: torch.device) -> None:
        """``transform`` knows the size and the colours of the pictures, and the recipe the rest."""
        self.size = transform.size
        self.normalize = transform.normalize
        self.device = device
        self.augment = recipe.augment
        self.views = recipe.objective.views
        self.run = recipe.run

    def look(self) -> Views:
        """The function from a picture to its variants, which reading processes get."""
        views, augment = self.views, self.augment
        small_size = (views.small_size, views.small_size)
        small = training_transform(small_size, augment, scale=views.small_scale) if views.small else None
        return Views(training_transform(self.size, augment), views.large, small, views.small)

    def parts(self, pictures: Pictures) -> list[Batch]:
        """The pictures, in as many parts as memory asks for; in exactly so many where processes wait for each other."""
        # Bytes travel to the device, a quarter of the floats that are made of them there.
        tensors = [pictures.images, pictures.labels, *([pictures.small] if pictures.small is not None else [])]
        pieces = zip(*(tensor.tensor_split(self.run.accumulate) for tensor in tensors), strict=True)
        parts = [self._on_device(*piece) if len(piece[1]) else self._blank() for piece in pieces]
        return parts if world_size() > 1 else [part for part in parts if not part.blank]

    def _blank(self) -> Batch:
        large, small, side = self.views.large, self.views.small, self.views.small_size
        shape = (2, *([large] if large > 1 else []), 3, *self.size)
        return Batch(
            images=torch.zeros(shape, device=self.device),
            labels=torch.zeros(2, dtype=torch.int64, device=self.device),
            small=torch.zeros(2, small, 3, side, side, device=self.device) if small else None,
            blank=True,
        )

    def _on_device(self, images: torch.Tensor, labels: torch.Tensor, small: torch.Tensor | None = None) -> Batch:
        return Batch(
            images=self._normalized(images),
            labels=labels.to(self.device, non_blocking=True),
            small=self._normalized(small) if small is not None else None,
        )

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        normal = self.normalize(images.to(self.device, non_blocking=True))
        if not self.run.channels_last:
            return normal
        flat = normal.flatten(0, -4).contiguous(memory_format=torch.channels_last)  # torch has no more dimensions there
        return flat.unflatten(0, normal.shape[:-3])

"""What a training method is, and the table of them.

Shapes: B images, C channels, H height, W width.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from birder.errors import ConfigError
from birder.layers.shape import DropPath
from birder.networks.base import Network, networks
from birder.registry import Registry

_MOST_NAMES = 8
"""Networks that a message names."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of one step, on the device."""

    images: Tensor
    """(B, C, H, W), normalised; (B, V, C, H, W) for an objective that wants V views of each picture, 2 or more."""
    labels: Tensor
    """(B,), int64; zeros for an objective that needs none."""
    small: Tensor | None = None
    """(B, V', C, h, w), further views of a smaller size, for an objective that wants some."""
    blank: bool = False
    """Whether it only stands in where a process has no pictures, and others wait for it; it counts nothing."""

    @property
    def count(self) -> int:
        """How many pictures count."""
        return 0 if self.blank else len(self.images)


class Objective(nn.Module):
    """(network, batch, progress) -> losses.

    A subclass has a constructor of the network, its options, and by keyword what it ``takes``.

    Attributes:
        network: What is trained.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    """Which facts of a run the constructor takes: names of arguments of ``create_objective``."""
    compares: ClassVar[bool] = False
    """Whether the pictures of a step are compared with each other. Then the loss is that of all of them, which the
    processes bring together with ``birder.distributed.gathered``, and a step is not cut into parts."""
    least: ClassVar[int] = 1
    """Fewest pictures that each process needs in a step; a step in which one has fewer, but some, is left out."""
    reaches_all: ClassVar[bool] = True
    """Whether every trained weight gets a gradient in every step; what learns from maps needs no pool, for one."""

    network: Network

    @property
    def result(self) -> Network:
        """What is left in the end: the network, or a teacher that followed it."""
        return self.network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses by name; ``loss`` is the one that is minimised, others are shown.

        A loss is the mean over the pictures, so that a batch may be cut into parts, unless the objective ``compares``.

        Args:
            batch: Pictures, and labels where the method needs them.
            progress: Share of the run that is over, in [0, 1].
        """
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What follows a move of the weights, such as a teacher."""


objectives: Registry[Objective] = Registry("objective")
"""Name -> (class of the objective, class of its options); ``birder.objectives.methods`` fills it."""


def keep_all_paths(network: Network) -> None:
    """Set the rate of every drop path of a network to 0, in its modules alone.

    Its options, which are saved with it, keep the rate: the network that is built of them drops paths again.
    """
    for module in network.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0


def check_ability(network: Network, protocol: type, *, needed_by: str, ability: str, otherwise: str) -> None:
    """Refuse a network that lacks what an objective needs.

    Args:
        network: The one to train.
        protocol: The ability, with the methods that a network has for it.
        needed_by: Name of the objective.
        ability: What the network must be able to do, such as ``drop tokens``.
        otherwise: What to do if no network at all can.

    Raises:
        ConfigError: It cannot; the message names networks that can.
    """
    if isinstance(network, protocol):
        return
    methods = [name for name in dir(protocol) if not name.startswith("_") and callable(getattr(protocol, name))]
    able = [name for name, (cls, _) in networks.items() if all(hasattr(cls, method) for method in methods)]
    named = ", ".join(able[:_MOST_NAMES]) + (", …" if len(able) > _MOST_NAMES else "")
    advice = f"These can: {named}" if able else f"No registered network can: {otherwise}"
    raise ConfigError(f"{needed_by} needs a network that can {ability}; {network.name} cannot. {advice}")

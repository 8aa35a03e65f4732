"""What a calibration is to promise; without torch, for the command line."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from birder.errors import ConfigError

Kind: TypeAlias = Literal[
    "max_softmax", "max_logit", "entropy", "energy", "centroids", "mahalanobis", "relative_mahalanobis"
]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a calibration is to promise."""

    max_error: float = 0.05
    """The share of mistakes among the answers above the threshold, from 0 to less than 1."""
    coverage: float = 0.9
    """How often the right species is in a prediction set, above 0 and below 1."""
    novelty: Kind | Literal["none"] = "entropy"
    """What tells pictures of other things; none leaves it out."""
    kept: float = 0.95
    """The share of pictures of the model's species that may not be called not_in_list, above 0.5 and below 1."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ConfigError: One line for each.
        """
        mistakes = []
        if not 0 <= self.max_error < 1:
            mistakes.append(f"max_error: must be from 0 to less than 1, not {self.max_error}")
        if not 0 < self.coverage < 1:
            mistakes.append(f"coverage: must be above 0 and below 1, not {self.coverage}")
        if not 0.5 < self.kept < 1:
            mistakes.append(f"kept: must be above 0.5 and below 1, not {self.kept}")
        if mistakes:
            raise ConfigError("\n".join(mistakes))

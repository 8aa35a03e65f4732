"""Two models on the same pictures: is one better, or was it chance?

Shapes: N pictures.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from birder.errors import DataError
from birder.evaluation.estimates import bootstrap

Booleans: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two models differ on the same pictures."""

    difference: float
    """Accuracy of the first less that of the second, -1 to 1."""
    low: float
    """Where the interval of 95 % of the difference begins, by bootstrap."""
    high: float
    """Where it ends."""
    p_value: float
    """How likely so large a difference is between two models that are equally good, by McNemar's exact test."""
    only_a: int
    """Pictures that only the first named right."""
    only_b: int
    """Pictures that only the second named right."""


def paired(right_a: Booleans, right_b: Booleans, draws: int = 1000, *, seed: int = 0) -> Paired:
    """Compare two models by which pictures each named right.

    Args:
        right_a: Whether the first model was right, (N,) bool.
        right_b: Whether the second was, of the same pictures in the same order.
        draws: Draws of the bootstrap.
        seed: The same seed gives the same interval.

    Raises:
        DataError: The two are not of the same pictures, or there are none.
        ConfigError: Fewer than one draw.

    Paper: McNemar 1947, https://doi.org/10.1007/BF02295996
    """
    right_a, right_b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1 or not len(right_a):
        raise DataError(
            f"two models are compared on the same pictures, (N,) each; not {right_a.shape}, {right_b.shape}"
        )
    difference = right_a.astype(np.int8) - right_b.astype(np.int8)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    estimate = bootstrap(
        lambda indices: {"difference": float(difference[indices].mean())},
        len(difference),
        draws=draws,
        seed=seed,
        limits=(-1.0, 1.0),
    )["difference"]
    return Paired(
        difference=estimate.value,
        low=estimate.low,
        high=estimate.high,
        p_value=mcnemar(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p-value of McNemar's exact test: so many heads and tails, or a larger difference, of a fair coin.

    Args:
        only_a: Pictures that only the first model named right.
        only_b: Pictures that only the second named right.
    """
    total, few = only_a + only_b, min(only_a, only_b)
    whole = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(count + 1) - math.lgamma(total - count + 1)) for count in range(few + 1)
    )
    return min(1.0, 2 * tail)

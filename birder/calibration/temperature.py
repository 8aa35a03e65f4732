"""Temperature scaling: one number that makes a network as sure as it is often right.

Shapes: N pictures, K classes.
"""

from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, Any]
Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures outside of these are not looked at: there, the labels say too little, as where every answer is right."""

_PART = 4096  # pictures at a time in float64


def fit_temperature(logits: Numbers, labels: Numbers) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the highest likelihood.

    The likelihood is concave in 1 / T, so the search is Newton's, kept within a bracket that each step narrows.

    Paper: Guo et al. 2017, https://arxiv.org/abs/1706.04599

    Args:
        logits: (N, K), of pictures that the network was not trained on.
        labels: (N,), what these show.
    """
    low, high = 1 / HOTTEST, 1 / COLDEST
    if _slope(logits, labels, low)[0] >= 0:
        return HOTTEST
    if _slope(logits, labels, high)[0] <= 0:
        return COLDEST
    at = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits, labels, at)
        low, high = (at, high) if slope < 0 else (low, at)
        step = at - slope / curvature if curvature > 0 else low
        last, at = at, step if low < step < high else (low + high) / 2
        if abs(at - last) <= 1e-10 * at:
            break
    return 1 / at


def log_likelihood(logits: Numbers, labels: Numbers, temperature: float = 1.0) -> Doubles:
    """(N,) logarithms of the probabilities of the labels, at a temperature."""
    values = np.asarray(logits, np.float64) / temperature
    values = values - values.max(axis=1, keepdims=True)
    return values[np.arange(len(labels)), labels] - np.log(np.exp(values).sum(axis=1))


def _slope(logits: Numbers, labels: Numbers, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood by 1 / T: mean and variance of the logits."""
    slope = curvature = 0.0
    for start in range(0, len(labels), _PART):
        values = np.asarray(logits[start : start + _PART], np.float64)
        values = values - values.max(axis=1, keepdims=True)
        shares = np.exp(inverse * values)
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * values).sum(axis=1)
        slope += float((mean - values[np.arange(len(values)), labels[start : start + _PART]]).sum())
        curvature += float(((shares * values**2).sum(axis=1) - mean**2).sum())
    return slope / len(labels), curvature / len(labels)

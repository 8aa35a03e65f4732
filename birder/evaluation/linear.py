"""A linear classifier on frozen embeddings: multinomial logistic regression, the linear probe.

Paper: Alain and Bengio 2016, https://arxiv.org/abs/1610.01644

The time grows with N x D x K, and with how weakly the weights are held back: ``fit_linear`` goes over all pictures up
to some hundred times; ``tuned_linear`` does so with a part of them for each strength, and with all once more.

Shapes: N pictures, D size of the embedding, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from birder.data.split import deal
from birder.data.thinning import thinned
from birder.evaluation.representation import chunks

WEIGHT_DECAYS = tuple(10 ** (1 - step / 2) for step in range(13))
"""The strengths that are tried, strongest first: 10 to 1e-5."""
_UNTUNED = 0.1  # the strength where there are too few pictures of each class to hold any out
_HELD_OUT = 0.2  # part of the pictures that chooses between the strengths
_TUNED_ON = 20_000  # pictures that the strength is chosen with; more would hardly choose another, for hours
_STEPS = 500  # far more than are needed


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear classifier of standardised embeddings."""

    weight: Tensor
    """(K, D)."""
    bias: Tensor
    """(K,)."""
    mean: Tensor
    """Subtracted from embeddings, (D,)."""
    scale: Tensor
    """Divided by after that, (D,)."""
    weight_decay: float
    """How strongly the weights were drawn to zero; see ``fit_linear``."""

    def logits(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return (rows - self.mean) / self.scale @ self.weight.T + self.bias


def fit_linear(rows: Tensor, labels: Tensor, weight_decay: float, start: LinearProbe | None = None) -> LinearProbe:
    """Logistic regression: the least mean cross entropy + weight_decay / 2 * |weight|^2, by L-BFGS.

    The embeddings are standardised by their own mean and deviation. scikit-learn's C is 1 / (weight_decay * N).

    Args:
        rows: (N, D), in the type and on the device that compute.
        labels: (N,), int64, 0 to K - 1, each of which occurs.
        weight_decay: How strongly the weights are drawn to zero, above 0.
        start: Weights to begin with, those of another strength; None is zero. It changes the time, not the result.
    """
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0)
    # A dimension that is constant up to rounding says nothing, and must not be blown up.
    scale = scale.clamp(min=max(1e-5 * float(scale.max()), torch.finfo(rows.dtype).tiny))
    standard = (rows - mean) / scale
    num_classes = int(labels.max()) + 1
    weight = rows.new_zeros(num_classes, rows.shape[1]) if start is None else start.weight.clone()
    bias = rows.new_zeros(num_classes) if start is None else start.bias.clone()
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_STEPS, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        """In parts: the logits of all pictures, with their gradients, may not fit into the memory."""
        optimizer.zero_grad()
        value = weight_decay / 2 * weight.square().sum()
        value.backward()
        for first, part in chunks(standard, num_classes):
            logits, truth = part @ weight.T + bias, labels[first : first + len(part)]
            share = F.cross_entropy(logits, truth, reduction="sum") / len(labels)
            share.backward()
            value = value.detach() + share.detach()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return LinearProbe(weight=weight.detach(), bias=bias.detach(), mean=mean, scale=scale, weight_decay=weight_decay)


def tuned_linear(rows: Tensor, labels: Tensor, *, seed: int = 0, tell: Callable[[str], object] = str) -> LinearProbe:
    """``fit_linear`` with the strength that does best on a fifth of the pictures, which is held out class by class.

    Most right answers are best, and of equally many those with the smallest cross entropy. All strengths are tried,
    as the first ones may all be no better than chance. Where no class has three pictures, none can be held out, and the
    strength is 0.1. Of more than 20,000 pictures so many choose the strength, see ``birder.data.thinning``; as fewer
    pictures need more strength, it is then rather a step too strong.

    Args:
        rows: (N, D).
        labels: (N,), int64, 0 to K - 1, each of which occurs.
        seed: Another one, another fifth.
        tell: Is told in words which strength is tried, as each begins.
    """
    places = torch.from_numpy(thinned(labels.cpu().numpy(), _TUNED_ON)).to(rows.device)
    truth = labels[places].unique(return_inverse=True)[1]  # some classes may be left out
    names = [str(index) for index in range(len(places))]
    part = deal(truth.cpu().numpy(), np.arange(len(places)), names, val=_HELD_OUT, test=0.0, seed=seed)
    chosen, held = (torch.from_numpy(np.flatnonzero(part == number)).to(rows.device) for number in (0, 1))
    learned, known, asked, wanted = rows[places[chosen]], truth[chosen], rows[places[held]], truth[held]
    tried: list[tuple[int, float, float]] = []  # right answers, minus the cross entropy, strength
    probe = None
    for number, weight_decay in enumerate(WEIGHT_DECAYS if len(held) else ()):
        tell(f"linear probe: weight decay {weight_decay:.2g}, {number + 1} of {len(WEIGHT_DECAYS)} to choose from")
        probe = fit_linear(learned, known, weight_decay, probe)
        logits = probe.logits(asked)
        right = int((logits.argmax(dim=1) == wanted).sum())
        tried.append((right, -float(F.cross_entropy(logits, wanted)), weight_decay))
    best = max(tried)[2] if tried else _UNTUNED
    tell(f"linear probe: of all {len(rows)} pictures, weight decay {best:.2g}")
    return fit_linear(rows, labels, best)

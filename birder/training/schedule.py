"""The learning rate, as a function of the step."""

import math


def warmup_cosine(step: int, steps: int, *, warmup: int, final: float) -> float:
    """Share of the highest learning rate: up in a line over ``warmup`` steps, then down along a cosine to ``final``.

    Paper: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, section 3 (without restarts)
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * min(progress, 1.0))) / 2.0

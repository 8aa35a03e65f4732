"""The learning rate, as a function of the step."""

import math


def warmup_cosine(step: int, steps: int, *, warmup: int, final: float) -> float:
    """Share of the highest learning rate: up in a line over ``warmup`` steps, then down along a cosine to ``final``.

    Paper: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, section 3 (without restarts)
    """
    if step < warmup:
        return (step + 1) / warmup
    begin = max(warmup - 1, 0)  # the last step of the rise is the top, and the first of the fall
    progress = (step - begin) / max(steps - begin, 1)
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * progress)) / 2.0

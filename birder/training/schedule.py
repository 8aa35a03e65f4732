"""The learning rate, as a function of the step."""

import math
from bisect import bisect_right

from birder.training.recipe import Schedule


def learning_rate_share(step: int, schedule: Schedule, *, steps: int, steps_per_epoch: int) -> float:
    """Share of the highest learning rate in one step.

    Over W warm-up steps it rises in a line, from 1 / W in the first to 1 in the last, which is also where the curve
    begins. Over C cool-down steps it falls in a line: the first has what the curve ends with, and the first step after
    the run would have 0. The curve ends where the cool-down begins, or the run ends.

    Papers: cosine, Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983, section 3 (without restarts);
    reciprocal square root, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 3; its cool-down, Zhai et
    al. 2021, https://arxiv.org/abs/2106.04560, section 3.5

    Args:
        step: From 0.
        schedule: The curve; no ``warmup_epochs`` is no warm-up.
        steps: Number of steps in the run.
        steps_per_epoch: Number of steps in one pass.
    """
    warmup = round((schedule.warmup_epochs or 0.0) * steps_per_epoch)
    cooldown = round(schedule.cooldown_epochs * steps_per_epoch)
    begin = max(warmup - 1, 0)  # the last step of the rise is the top, and the first of the curve
    end = max(steps - cooldown, begin + 1)
    if step < warmup:
        return (step + 1) / warmup
    if step < end or not cooldown:
        return _curve(step, schedule, begin, end, steps_per_epoch)
    return _curve(end, schedule, begin, end, steps_per_epoch) * max(steps - step, 0) / cooldown


def _curve(step: int, schedule: Schedule, begin: int, end: int, steps_per_epoch: int) -> float:
    """The curve between the ramps."""
    progress = (step - begin) / (end - begin)
    final = schedule.final_lr
    match schedule.name:
        case "cosine":
            return final + (1.0 - final) * (1.0 + math.cos(math.pi * progress)) / 2.0
        case "polynomial":
            return final + (1.0 - final) * (1.0 - progress) ** schedule.power
        case "step":
            return schedule.step_factor ** _drops(step, schedule.step_epochs, steps_per_epoch)
        case "constant":
            return 1.0
        case "reciprocal-sqrt":
            # With the warm-up as its unit, this is equation 3 behind the warm-up; without one, a pass takes its place.
            return 1.0 / math.sqrt(1.0 + (step - begin) / (begin + 1 if begin else steps_per_epoch))


def _drops(step: int, epochs: tuple[float, ...], steps_per_epoch: int) -> int:
    """How often the learning rate has fallen: after every so many passes, or after each of several numbers of them."""
    places = [max(round(number * steps_per_epoch), 1) for number in epochs]
    return step // places[0] if len(places) == 1 else bisect_right(places, step)

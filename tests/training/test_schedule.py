"""The learning rate against its closed forms, and against torch's schedulers."""

import math
import warnings
from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from birder.training.recipe import Schedule
from birder.training.schedule import learning_rate_share

STEPS, PER_EPOCH = 100, 10
NAMES = ("cosine", "polynomial", "step", "constant", "reciprocal-sqrt")


def shares(steps=STEPS, *, name="cosine", warmup_epochs=1.0, per_epoch=PER_EPOCH, **options):
    """The share of every step of a run."""
    schedule = Schedule(name=name, warmup_epochs=warmup_epochs, **options)
    return [learning_rate_share(step, schedule, steps=steps, steps_per_epoch=per_epoch) for step in range(steps)]


def torch_shares(make, count):
    """What a scheduler of torch gives for the first steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are no moves between the steps
        scheduler = make(optimizer)
        rates = []
        for _ in range(count):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


@pytest.mark.parametrize("name", NAMES)
def test_it_rises_in_a_line_and_never_starts_at_zero(name):
    assert shares(name=name)[:10] == [(step + 1) / 10 for step in range(10)]


def test_the_rise_is_that_of_torch():
    expected = torch_shares(lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.1, total_iters=9), 10)
    assert shares()[:10] == pytest.approx(expected)


def test_cosine():
    found = shares(final_lr=0.1)
    for step in range(9, 100):
        assert found[step] == 0.1 + (1.0 - 0.1) * (1.0 + math.cos(math.pi * ((step - 9) / 91))) / 2.0
    expected = torch_shares(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 91, eta_min=0.1), 91)
    assert found[9:] == pytest.approx(expected)


def test_cosine_would_reach_its_end_in_the_step_behind_the_last():
    schedule = Schedule(warmup_epochs=1.0, final_lr=0.1)
    assert learning_rate_share(100, schedule, steps=100, steps_per_epoch=10) == pytest.approx(0.1)
    assert shares(final_lr=0.1)[-1] > 0.1


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_polynomial(power):
    found = shares(name="polynomial", power=power, final_lr=0.2)
    for step in range(9, 100):
        assert found[step] == pytest.approx(0.2 + 0.8 * (1 - (step - 9) / 91) ** power)
    expected = torch_shares(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, 91, power=power), 91)
    assert shares(name="polynomial", power=power)[9:] == pytest.approx(expected)


def test_step_falls_after_every_so_many_passes():
    found = shares(name="step", step_epochs=(3.0,), step_factor=0.1)
    expected = torch_shares(lambda optimizer: lr_scheduler.StepLR(optimizer, 30, gamma=0.1), 100)
    assert found[9:] == pytest.approx(expected[9:])
    assert [found[step] for step in (29, 30, 59, 60, 90)] == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.001])


def test_step_falls_after_each_of_several_numbers_of_passes():
    found = shares(name="step", step_epochs=(3.0, 4.5, 8.0), step_factor=0.5)
    expected = torch_shares(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [30, 45, 80], gamma=0.5), 100)
    assert found[9:] == pytest.approx(expected[9:])


def test_step_counts_passes_that_are_no_whole_number_of_steps():
    found = shares(12, name="step", step_epochs=(0.7,), step_factor=0.5, per_epoch=10, warmup_epochs=0.0)
    assert found == [1.0] * 7 + [0.5] * 5
    found = shares(40, name="step", step_epochs=(0.29,), step_factor=0.5, per_epoch=100, warmup_epochs=0.0)
    assert found == [1.0] * 29 + [0.5] * 11
    assert shares(4, name="step", step_epochs=(0.01,), step_factor=0.5, warmup_epochs=0.0) == [1.0, 0.5, 0.25, 0.125]


def test_constant():
    assert shares(name="constant")[9:] == [1.0] * 91


def test_reciprocal_sqrt_is_that_of_the_transformer():
    """Vaswani et al. 2017, equation 3, up to its factor: the smaller of step^-0.5 and step * warmup^-1.5."""
    expected = [min(step**-0.5, step * 20**-1.5) * 20**0.5 for step in range(1, 101)]
    assert shares(name="reciprocal-sqrt", warmup_epochs=2.0) == pytest.approx(expected)


def test_reciprocal_sqrt_without_a_warmup_has_halved_after_three_passes():
    found = shares(name="reciprocal-sqrt", warmup_epochs=0.0)
    assert found[0] == 1.0
    assert found[30] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["cosine", "polynomial", "constant", "reciprocal-sqrt"])
def test_the_top_is_reached_once_and_what_follows_never_rises(name):
    found = shares(name=name)
    assert max(found) == found[9] == 1.0
    assert all(later <= earlier for earlier, later in pairwise(found[9:]))
    assert found.count(1.0) == (91 if name == "constant" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_cooldown_goes_in_a_line_to_zero_behind_the_last_step(name):
    options = {"name": name, "final_lr": 0.3, "step_epochs": (5.0,), "cooldown_epochs": 2.0}
    found, shorter = shares(**options), shares(81, **options | {"cooldown_epochs": 0.0})
    top = {"cosine": 0.3, "polynomial": 0.3, "step": 0.1, "constant": 1.0, "reciprocal-sqrt": (10 / 81) ** 0.5}[name]
    assert found[80:] == pytest.approx([top * (100 - step) / 20 for step in range(80, 100)])
    assert learning_rate_share(100, Schedule(**options), steps=100, steps_per_epoch=10) == 0.0
    if name in ("step", "constant", "reciprocal-sqrt"):  # these do not depend on where they end
        assert found[:81] == shorter


def test_the_cooldown_is_that_of_torch():
    expected = torch_shares(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=20), 20)
    assert shares(name="constant", cooldown_epochs=2.0)[80:] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cosine", "polynomial", "constant"])
def test_without_warmup_it_starts_at_the_top(name):
    assert shares(name=name, warmup_epochs=0.0)[0] == 1.0
    assert shares(name=name, warmup_epochs=None) == shares(name=name, warmup_epochs=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_warmup_as_long_as_the_run_has_no_way_down(name):
    assert shares(4, name=name, warmup_epochs=0.4) == [0.25, 0.5, 0.75, 1.0]


def test_the_ramps_can_be_all_there_is():
    found = shares(name="constant", warmup_epochs=4.0, cooldown_epochs=6.0)
    assert found == pytest.approx(
        [(step + 1) / 40 for step in range(40)] + [(100 - step) / 60 for step in range(40, 100)]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("warmup", "cooldown"), [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_short_runs_get_shares_between_0_and_1(name, steps, warmup, cooldown):
    options = {"warmup_epochs": warmup, "cooldown_epochs": cooldown, "final_lr": 0.1}
    found = shares(steps, name=name, per_epoch=steps, **options)
    assert all(0.0 < share <= 1.0 for share in found)

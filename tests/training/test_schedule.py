"""The learning rate against its closed form."""

import math

import pytest

from birder.training.schedule import warmup_cosine


def rate(step, steps=100, warmup=10, final=0.1):
    return warmup_cosine(step, steps, warmup=warmup, final=final)


def test_it_rises_in_a_line_and_never_starts_at_zero():
    assert [rate(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])


def test_it_falls_along_a_cosine_to_the_final_share():
    for step in range(9, 101):
        assert rate(step) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (step - 9) / 91)) / 2)
    assert rate(100) == pytest.approx(0.1)


def test_the_top_is_reached_once():
    assert [step for step in range(100) if rate(step) == 1.0] == [9]


def test_without_warmup_it_starts_at_the_top():
    assert rate(0, warmup=0) == 1.0


def test_a_warmup_as_long_as_the_run_has_no_way_down():
    assert [warmup_cosine(step, 4, warmup=4, final=0.0) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]

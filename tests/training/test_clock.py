"""Times by a clock that the test moves, and memory as the system counts it."""

import re
from pathlib import Path

import pytest
import torch

from birder.training import clock as clock_module
from birder.training.clock import Clock, peak_memory_mib


class Hands:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(clock_module, "time", hands)
    return hands


def test_pictures_per_second_and_the_share_of_waiting(hands: Hands) -> None:
    clock = Clock()
    for waited, computed in ((0.5, 1.5), (0.0, 2.0), (1.5, 2.5)):
        with clock.waiting():
            hands.now += waited
        hands.now += computed
        clock.pictures += 40
    assert clock.result() == {"images_per_s": 120 / 8, "data_wait": 2.0 / 8, "seconds": 8.0}
    hands.now += 2.0
    assert clock.result() == {"images_per_s": 120 / 10, "data_wait": 2.0 / 10, "seconds": 10.0}


def test_memory_is_what_the_system_says() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system tells it in another way")
    large = torch.ones(20 * 2**20)  # 80 MiB
    peak = peak_memory_mib(torch.device("cpu"))
    counted = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert counted is not None
    assert peak == pytest.approx(int(counted[1]) / 1024, rel=0.02)
    del large
    assert peak_memory_mib(torch.device("cpu")) >= peak, "the most so far, not what is taken now"

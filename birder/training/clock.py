"""How long a run takes, what it waits for, and how much memory it takes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """How long some steps took, and how much of it was waiting for pictures.

    Attributes:
        pictures: How many went through meanwhile.
    """

    def __init__(self) -> None:
        """Start now."""
        self.pictures = 0
        self._began = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The body waits for pictures."""
        asked = time.monotonic()
        yield
        self._waited += time.monotonic() - asked

    def result(self) -> dict[str, float]:
        """``images_per_s``, ``data_wait`` (share of the time, 0-1) and ``seconds``, so far."""
        seconds = time.monotonic() - self._began
        return {"images_per_s": self.pictures / seconds, "data_wait": self._waited / seconds, "seconds": seconds}


def peak_memory_mib(device: torch.device) -> float:
    """The most memory that was taken so far: of the GPU, or else of this process; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

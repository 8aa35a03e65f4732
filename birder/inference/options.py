"""What can be asked of a prediction: which pictures count as readable, how they are computed, what is said of them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from birder.errors import refuse

LARGEST_BATCH = 64
"""Pictures; a block of inputs is as large, see ``birder.inference.rows``."""

# Those that say how the work is shared out: on a processor no answer depends on them, on a GPU only last decimals.
_NO_MATTER = {"batch_size", "threads", "workers", "timeout"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """How pictures are read, and how the network computes."""

    backend: Literal["auto", "torch", "compiled", "openvino", "onnx", "cuda"] = "auto"
    """What computes; auto takes the fastest here that agrees with torch."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Kind of numbers; auto takes bf16 where it is faster and agrees, otherwise fp32; int8 only if asked for."""
    device: str = "auto"
    """Where to compute, such as cpu or cuda; auto is the fastest there is."""
    batch_size: int | None = None
    """Pictures that go through the network together; left out, what suits this machine."""
    threads: int = 0
    """Cores for the network; 0 is all of them."""
    workers: int | None = None
    """Processes that read pictures ahead; left out, as many as cores, at most 32; 0 reads between the batches."""
    tta: bool = False
    """Look at five parts of each picture and take the mean: slower, mostly a little better."""
    exact: bool = False
    """Decode every pixel of large JPEGs; otherwise at least twice the size that the network takes."""
    truncated: Literal["skip", "read"] = "skip"
    """A picture whose end is missing is an error, or is read as far as it goes."""
    timeout: float = 30.0
    """Seconds for one file, which is tried twice, then given up; not on Windows, nor with --workers 0."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ConfigError: One line for each.
        """
        refuse(self._mistakes())

    def _mistakes(self) -> list[tuple[str, str]]:
        wrong = []
        if self.batch_size is not None and not 1 <= self.batch_size <= LARGEST_BATCH:
            wrong.append(("batch_size", f"must be from 1 to {LARGEST_BATCH}, not {self.batch_size}"))
        if self.threads < 0:
            wrong.append(("threads", f"must be 0 or more, not {self.threads}"))
        if self.workers is not None and self.workers < 0:
            wrong.append(("workers", f"must be 0 or more, not {self.workers}"))
        if not 0 < self.timeout < 1e6:
            wrong.append(("timeout", f"must be more than 0 and less than a million seconds, not {self.timeout}"))
        if self.truncated not in ("skip", "read"):
            wrong.append(("truncated", f"must be skip or read, not {self.truncated!r}"))
        return wrong

    def asked(self) -> dict[str, Any]:
        """The options on which the answers depend, as plain values: what tells one run from another."""
        values = {name: value for name, value in asdict(self).items() if name not in _NO_MATTER}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Options(Work):
    """How pictures are read, how the network computes, and what is said of each picture."""

    top: int | Literal["all"] = 5
    """Classes named for each picture, a number or all."""
    classes: Path | None = None
    """A checklist, one name in a line: only what is on it may be named."""
    min_score: float | Literal["auto"] = 0.0
    """Pictures whose best score is lower have the status unsure; auto is the threshold that birder calibrate found."""

    def _mistakes(self) -> list[tuple[str, str]]:
        wrong = super()._mistakes()
        if self.top != "all" and self.top < 1:
            wrong.append(("top", f"must be 1 or more, or all, not {self.top}"))
        if self.min_score != "auto" and not 0 <= self.min_score <= 1:
            wrong.append(("min_score", f"must be from 0 to 1, or auto, not {self.min_score}"))
        return wrong

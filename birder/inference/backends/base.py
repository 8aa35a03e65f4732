"""What every way to compute a network's answers offers.

Shapes: B pictures, C channels, H height, W width, D size of the embedding, K classes.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

from birder.data.fitting import Pixels
from birder.errors import BirderError, ConfigError
from birder.inference.rows import Floats


class Outputs(NamedTuple):
    """Answers to a batch, as numbers in ordinary memory."""

    embeddings: Floats
    """(B, D)."""
    logits: Floats | None = None
    """(B, K); None of a network without classifier."""


class Pending:
    """Answers to a batch that are being computed, by threads of the backend."""

    def __init__(self, parts: "list[Future[list[Outputs]]]") -> None:
        """What will be the answers to each part of the batch, in order: one ``Outputs`` for each view of it."""
        self._parts = parts

    def result(self) -> list[Outputs]:
        """Wait for them: one ``Outputs`` for each view of the pictures.

        Raises:
            ConfigError: The batch does not fit into the memory of the device.
            concurrent.futures.CancelledError: It was cancelled.
        """
        try:
            return [_joined(view) for view in zip(*(part.result() for part in self._parts), strict=True)]
        except BaseException:  # Ctrl-C too
            self.cancel()
            raise

    def cancel(self) -> None:
        """Compute no more than has been begun; nothing waits for that."""
        for part in self._parts:
            part.cancel()


def _joined(parts: Iterable[Outputs]) -> Outputs:
    answers = list(parts)
    logits = [answer.logits for answer in answers if answer.logits is not None]
    return Outputs(
        np.concatenate([answer.embeddings for answer in answers]), np.concatenate(logits) if logits else None
    )


class Backend(Protocol):
    """A network that was made ready for batches of one size.

    It takes pixels, uint8 (B, H, W, C) with B from 1 to ``batch_size``, and normalises them itself. The answer to a
    picture depends neither on what else is in the batch nor on its place in it. Several threads may ask at once.
    """

    name: str
    """What it is and computes in, such as ``openvino bf16``."""
    device: str
    """Where it computes, such as ``cpu``."""
    batch_size: int
    """The largest batch it takes; on a GPU, a smaller one costs as much."""

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        """Have pictures computed, after those that were asked for before, and do not wait.

        Args:
            pixels: The pictures, which must not change meanwhile.
            five: Five parts of each are the views, in place of the whole; see
                ``birder.inference.classification.five_crops``.

        Raises:
            ConfigError: Pictures in another form.
        """
        ...

    def __call__(self, pixels: Pixels) -> Outputs:
        """Answers to pictures.

        Raises:
            ConfigError: Pictures in another form, or a batch that does not fit into the memory of the device.
        """
        return self.begin(pixels).result()[0]


def check(pixels: Pixels, shape: tuple[int, ...]) -> None:
    """Pictures are uint8 of (H, W, C) as in ``shape``, (batch size, C, H, W), and not more than the batch takes.

    Raises:
        ConfigError: They are not.
    """
    most, channels, *size = shape
    wanted = (*size, channels)
    if pixels.shape[1:] != wanted or not 1 <= len(pixels) <= most or pixels.dtype != "uint8":
        raise ConfigError(
            f"this backend takes uint8 pictures of {wanted}, 1 to {most} at once, not {pixels.shape} {pixels.dtype}"
        )


def tried(backend: Backend, shape: tuple[int, ...]) -> Backend:
    """The backend, when it has computed a first picture.

    Args:
        backend: Any.
        shape: (batch size, C, H, W).
    """
    _, channels, *size = shape
    backend(np.zeros((1, *size, channels), np.uint8))
    return backend


@contextmanager
def converting(backend: str) -> Iterator[None]:
    """Say in one sentence why a backend cannot take the network.

    Raises:
        ConfigError: Anything went wrong.
    """
    try:
        yield
    except BirderError:
        raise
    except Exception as error:  # each package has its own kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[0] if lines else type(error).__name__
        raise ConfigError(f"{backend} cannot take this network: {type(error).__name__}: {cause[:300]}") from error

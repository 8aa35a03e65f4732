"""How the pictures of a batch are computed: one by one on a processor, together on a GPU."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from birder.cores import available_cores
from birder.inference.backends.base import Compute, Outputs, check, padded
from birder.networks.base import Network


def shape_of(network: Network, batch_size: int) -> tuple[int, int, int, int]:
    """(B, C, H, W) of the batches of a network."""
    return (batch_size, network.input_channels, *network.size)


class OneByOne:
    """A backend of a processor: each core computes a picture of its own, alone.

    So the answer to a picture is the same to the last bit, whatever else is in the batch and however many cores there
    are; products of matrices of several pictures promise neither. It is not slower either: the cores never wait for
    each other, and one picture fills the registers of a core.

    Attributes:
        name: See ``Backend``.
        device: See ``Backend``.
        batch_size: See ``Backend``.
    """

    def __init__(self, name: str, compute: Compute, shape: tuple[int, int, int, int], threads: int = 0) -> None:
        """Start the threads and compute a first picture.

        Args:
            name: See ``Backend``.
            compute: Answers to one picture, (1, C, H, W); several threads call it, each of which computes alone.
            shape: (batch size, C, H, W).
            threads: Cores to use; 0 is all that this process may use.
        """
        self.name = name
        self.device = torch.device("cpu")
        self.batch_size = shape[0]
        self._compute = compute
        self._shape = shape
        threads = threads or available_cores()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        before = torch.get_num_threads()
        together = threading.Barrier(threads)
        list(self._pool.map(lambda _: _alone(together), range(threads)))
        torch.set_num_threads(before)  # for threads that others start: torch also remembers the number for these
        self(torch.zeros(1, *shape[1:]))

    def __call__(self, images: Tensor) -> Outputs:
        """See ``Backend``."""
        check(images, self._shape)
        answers = list(self._pool.map(self._compute, images.split(1)))
        logits = [answer.logits for answer in answers if answer.logits is not None]
        return Outputs(
            np.concatenate([answer.embeddings for answer in answers]), np.concatenate(logits) if logits else None
        )


class Together:
    """A backend of a GPU: batches are filled up, and computed at once.

    All batches have one size, so that the same kernels compute each of them.

    Attributes:
        name: See ``Backend``.
        device: See ``Backend``.
        batch_size: See ``Backend``.
    """

    def __init__(self, name: str, compute: Compute, shape: tuple[int, int, int, int], device: torch.device) -> None:
        """Compute a first batch.

        Args:
            name: See ``Backend``.
            compute: Answers to a whole batch; never called twice at once.
            shape: (batch size, C, H, W).
            device: See ``Backend``.
        """
        self.name = name
        self.device = device
        self.batch_size = shape[0]
        self._compute = compute
        self._shape = shape
        self._alone = threading.Lock()
        self(torch.zeros(1, *shape[1:], device=device))

    def __call__(self, images: Tensor) -> Outputs:
        """See ``Backend``."""
        check(images, self._shape)
        with self._alone:
            embeddings, logits = self._compute(padded(images, self.batch_size))
        return Outputs(embeddings[: len(images)], None if logits is None else logits[: len(images)])


def _alone(together: threading.Barrier) -> None:
    """This thread computes without help; waits until all threads of the pool have come so far."""
    torch.set_num_threads(1)
    together.wait()

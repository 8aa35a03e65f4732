"""What several sources say of the same pictures, in numbers that they share.

Models may have different classes, and results may lack pictures. Here each class and each picture has one number.

Shapes: N pictures that a source has an answer to, T best classes that are known of each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from birder.data.samples import Samples
from birder.errors import DataError
from birder.evaluation.classification import Evaluation, Ranked
from birder.evaluation.metrics import Labels

NOBODY = -1
"""In place of a class where fewer than T are known."""


@dataclass(frozen=True, kw_only=True)
class Answers(Ranked):
    """What one source says; ``ranked`` is ``NOBODY``, and ``probabilities`` 0, behind the last class that is known."""

    pictures: Labels
    """(N,), numbers of the pictures."""


def all_names(evaluations: Iterable[Evaluation]) -> list[str]:
    """The names of all classes, sorted."""
    return sorted({name for evaluation in evaluations for name in evaluation.names})


def joined(evaluations: Sequence[Evaluation], samples: Samples) -> tuple[list[str], list[Answers]]:
    """The names of all classes, sorted, and what each evaluation says in their numbers.

    Args:
        evaluations: Each of ``samples`` or of a part of them.
        samples: The pictures.

    Raises:
        DataError: An evaluation has a picture that is not among the samples.
    """
    names = all_names(evaluations)
    number_of = {name: number for number, name in enumerate(names)}
    picture_of = {samples.name(number): number for number in range(len(samples))}
    return names, [
        Answers(
            pictures=_pictures(map(str, evaluation.paths), picture_of),
            labels=new[evaluation.labels],
            ranked=np.where(evaluation.ranked < 0, NOBODY, new[evaluation.ranked]),
            probabilities=np.nan_to_num(evaluation.probabilities),
        )
        for evaluation in evaluations
        for new in [np.array([number_of[name] for name in evaluation.names])]
    ]


def _pictures(paths: Iterable[str], picture_of: dict[str, int]) -> Labels:
    try:
        return np.array([picture_of[path] for path in paths])
    except KeyError as error:
        raise DataError(f"{error.args[0]} is not among the pictures of the data; evaluate all on the same") from error

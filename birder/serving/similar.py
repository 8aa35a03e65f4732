"""Similar pictures: exact nearest neighbours, by cosine, in a table that ``birder embed`` wrote.

Shapes: N pictures of the table, B pictures that are asked for, D size of the embedding.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from birder.data.names import Names
from birder.errors import ConfigError, DataError
from birder.inference.results.run_file import read_run
from birder.inference.results.tables import Table
from birder.inference.rows import Floats, Row

Array: TypeAlias = np.ndarray[Any, Any]
Doubles: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_BLOCK_NUMBERS = 1 << 21  # float32 in a block of rows: 8 MiB
_ROUNDING = 2.0**-24  # of one operation in float32, relative


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture of the table that looks alike to the network."""

    picture: int
    """Its number: ``Similar.paths[picture]`` is its path."""
    similarity: float
    """Cosine of the two embeddings, -1 to 1."""


class Similar:
    """The pictures of a table, by what the network sees in them.

    Attributes:
        paths: The file of each picture, (N,), as it stands in the table.
    """

    def __init__(self, rows: Iterable[Row], embedding_size: int) -> None:
        """Keep the direction of each embedding; rows without one are left out.

        The embeddings are kept in blocks, as nobody knows how many there will be: beside them, there is room for one
        block, and for the letters of the paths.

        Args:
            rows: With embeddings of (D,).
            embedding_size: D.

        Raises:
            DataError: An embedding has values that are no numbers.
        """
        self.paths = Names()
        self._size = embedding_size
        self._blocks = tuple(self._units(rows))

    @classmethod
    def from_file(cls, path: str | Path, *, model_digest: str, embedding_size: int) -> "Similar":
        """Read a table.

        Args:
            path: What ``birder embed`` wrote, .parquet or .npy. The account beside it, ``NAME.run.json``, says which
                model that was; without it, only the size of the embeddings is looked at.
            model_digest: SHA-256 of the file of the model that is going to ask, in hexadecimal digits.
            embedding_size: D of that model.

        Raises:
            ConfigError: The embeddings are those of another model.
            DataError: The file cannot be read, is damaged, or has no embeddings.
            MissingPackage: Parquet without pyarrow.
        """
        table, run = Table(path), read_run(path)
        size, again = table.layout.embedding, f"birder embed MODEL FOLDER --output {table.path.name}"
        if not size:
            raise DataError(f"{path} has no embeddings, and so tells nothing about likeness; make it by {again}")
        made_by = {} if run is None else run.model
        if made_by and made_by.get("sha256") != model_digest:
            raise ConfigError(
                f"{path} has the embeddings of another model, {made_by.get('name')} (sha256 "
                f"{str(made_by.get('sha256'))[:12]}…, not {model_digest[:12]}…); make it anew by {again}"
            )
        if size != embedding_size:
            raise ConfigError(
                f"{path} has embeddings of {size} numbers, and those of the model have {embedding_size}: "
                f"they are of another model; make it anew by {again}"
            )
        try:
            similar = cls(table, size)
        except DataError as error:
            raise error if str(path) in str(error) else DataError(f"{path} {error}") from error
        if not similar.paths:
            raise DataError(f"{path} has no picture with an embedding, so nothing could be similar")
        return similar

    def nearest(self, embeddings: Array, count: int) -> list[list[Neighbour]]:
        """The pictures that are most alike, most alike first, of equal ones that with the lower number.

        An embedding of zeros is like no other, with a similarity of 0 to all. What is asked for together changes no
        answer.

        Args:
            embeddings: (B, D).
            count: How many neighbours of each; fewer if the table has fewer.

        Returns:
            A list for each of the B; an empty one if its embedding has values that are no numbers.

        Raises:
            ConfigError: Embeddings of another size.
        """
        asked = np.asarray(embeddings, np.float64)
        if asked.ndim != 2 or asked.shape[1] != self._size:
            raise ConfigError(f"embeddings must be (B, {self._size}), not {asked.shape}")
        finite = np.logical_and.reduce(np.isfinite(asked), axis=1)
        units = _directions(np.where(finite[:, None], asked, 0))
        nearest, first = [_Nearest(unit, count) for unit in units], 0
        for block in self._blocks:
            for each, roughly in zip(nearest, units.astype(np.float32) @ block.T, strict=True):
                each.look_at(block, first, roughly)
            first += len(block)
        return [each.neighbours() if good else [] for each, good in zip(nearest, finite, strict=True)]

    def _units(self, rows: Iterable[Row]) -> Iterator[Floats]:
        """Blocks of rows of length 1."""
        length = max(1, _BLOCK_NUMBERS // self._size)
        block, filled = np.empty((length, self._size), np.float32), 0
        for number, row in enumerate(rows, 1):
            if row.embedding is None:
                continue
            if not np.isfinite(row.embedding).all():
                raise DataError(f"row {number} has an embedding with values that are no numbers")
            if filled == length:
                yield _directions(block).astype(np.float32)
                filled = 0
            block[filled] = row.embedding
            self.paths.append(row.path)
            filled += 1
        if filled:
            yield _directions(block[:filled]).astype(np.float32)


class _Nearest:
    """The nearest to one embedding, among the blocks that were looked at so far.

    A product of matrices is fast, and its last bits depend on where in it a row stands, so that two copies of a picture
    would be told apart. It only chooses whom to look at: all that its rounding may have hidden. Those are compared in
    float64, each row by itself.
    """

    def __init__(self, unit: Doubles, count: int) -> None:
        """Of a direction (D,), at most ``count``."""
        self.unit = unit
        self.count = count
        self.margin = 2 * (len(unit) + 4) * _ROUNDING
        self.numbers: Numbers = np.empty(0, np.int64)
        self.similarities: Doubles = np.empty(0, np.float64)

    def look_at(self, block: Floats, first: int, roughly: Floats) -> None:
        """Take in what is near in a block of rows, of which the first has the number ``first``."""
        if self.count < 1:
            return
        least = self.similarities[-1] if len(self.similarities) == self.count else -np.inf
        if len(block) > self.count:
            least = max(least, np.partition(roughly, -self.count)[-self.count])
        places = np.flatnonzero(roughly >= least - self.margin)
        exactly = (block[places] * self.unit).sum(axis=1).clip(-1, 1)
        numbers = np.concatenate([self.numbers, places + first])
        similarities = np.concatenate([self.similarities, exactly])
        order = np.lexsort((numbers, -similarities))[: self.count]
        self.numbers, self.similarities = numbers[order], similarities[order]

    def neighbours(self) -> list[Neighbour]:
        """What was found."""
        return list(map(Neighbour, self.numbers.tolist(), self.similarities.tolist()))


def _directions(rows: Array) -> Doubles:
    """Rows (N, D) as float64 of length 1; zeros stay zeros."""
    doubles = rows.astype(np.float64)
    # Lengths in two steps, as the square of a very large number, or of a very small one, is none.
    largest = np.abs(doubles).max(axis=1, initial=0, keepdims=True)
    doubles = np.divide(doubles, largest, out=np.zeros_like(doubles), where=largest > 0)
    lengths = np.sqrt((doubles * doubles).sum(axis=1, keepdims=True))
    return np.divide(doubles, lengths, out=np.zeros_like(doubles), where=lengths > 0)

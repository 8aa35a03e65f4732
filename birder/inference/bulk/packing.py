"""The rows of a batch as bytes, and back: exact, whatever the paths are, and without names of classes written twice.

    N                      number of rows, uint32
    N keys (path, file)    see ``inputs.keys``, uint64
    N stamps (size, time)  uint64 and int64
    N times 6 lengths      of path, reason, time taken; scores, open scores, embedding; uint32
    N status               uint8
    labels                 numbers of class names, uint32, as many as scores
    scores, open scores, embeddings     float32
    paths, reasons, times  UTF-8, with surrogates for bytes that are none
    N novelties            float32, NaN for none; not there at all if no row has any, as in journals of older versions

Numbers are little-endian. Class names have the numbers that ``Names`` gives them.
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from birder.inference.bulk.inputs import Numbers, keys
from birder.inference.rows import Row, Status

_STATUS: tuple[Status, ...] = (
    "ok",
    "unsure",
    "error",
    "not_in_list",
)  # whose places are in journals: new ones come last
_COUNT = struct.Struct("<I")


class Names:
    """Names of classes and their numbers.

    Attributes:
        free: The next number to be given.
    """

    def __init__(self) -> None:
        """No names."""
        self.free = 0
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    def learn(self, start: int, names: Sequence[str]) -> None:
        """These names have the numbers from ``start`` on."""
        self._names.update(enumerate(names, start))
        self._numbers.update(zip(names, range(start, start + len(names)), strict=True))
        self.free = max(self.free, start + len(names))

    def new(self, rows: Iterable[Row]) -> list[str]:
        """Names in these rows that have no number yet."""
        return list(dict.fromkeys(name for row in rows for name in row.labels if name not in self._numbers))

    def numbers(self, names: Iterable[str]) -> list[int]:
        """The numbers of names."""
        return [self._numbers[name] for name in names]

    def names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """The names of numbers."""
        return tuple(self._names[number] for number in numbers)

    def knows(self, numbers: Numbers) -> bool:
        """Whether all these numbers have names."""
        if len(self._names) == self.free:  # none was lost
            return len(numbers) == 0 or bool(numbers.max() < self.free)
        return self._names.keys() >= set(numbers.tolist())


def pack(rows: Sequence[Row], names: Names) -> bytes:
    """Rows with their stamps as bytes; all their labels have numbers. Scores are kept as float32."""
    texts = [[text.encode("utf-8", "surrogatepass") for text in (row.path, row.reason, row.taken)] for row in rows]
    embeddings = [() if row.embedding is None else row.embedding for row in rows]
    lengths = [
        (*map(len, text), len(row.scores), len(row.open_scores), len(embedding))
        for row, text, embedding in zip(rows, texts, embeddings, strict=True)
    ]
    labels = [number for row in rows for number in names.numbers(row.labels)]
    assert len(labels) == sum(len(row.scores) for row in rows), "each label has a score"
    scores = [score for row in rows for score in row.scores] + [score for row in rows for score in row.open_scores]
    return b"".join(
        [
            _COUNT.pack(len(rows)),
            np.stack(keys([row.path for row in rows], [row.stamp for row in rows]), axis=1).tobytes(),
            b"".join(struct.pack("<Qq", *row.stamp) for row in rows),
            np.array(lengths, "<u4").tobytes(),
            bytes(_STATUS.index(row.status) for row in rows),
            np.array(labels, "<u4").tobytes(),
            np.array(scores, "<f4").tobytes(),
            *(np.asarray(embedding, "<f4").tobytes() for embedding in embeddings),
            *(text for column in zip(*texts, strict=True) for text in column),
            _novelties(rows),
        ]
    )


def _novelties(rows: Sequence[Row]) -> bytes:
    if all(row.novelty is None for row in rows):
        return b""
    return np.array([np.nan if row.novelty is None else row.novelty for row in rows], "<f4").tobytes()


class Packed:
    """The rows of one batch, each made when it is asked for."""

    def __init__(self, data: bytes) -> None:
        """Take apart what ``pack`` made."""
        (count,) = _COUNT.unpack_from(data)
        self._data = data
        self._at = _COUNT.size
        pairs = self._take("<u8", 2 * count).reshape(-1, 2)
        self.paths: Numbers = pairs[:, 0]
        self.files: Numbers = pairs[:, 1]
        self._stamps = self._take([("size", "<u8"), ("time", "<i8")], count)
        lengths = self._take("<u4", 6 * count).reshape(-1, 6).astype(np.int64)
        self._status = self._take("u1", count)
        total = lengths.sum(axis=0)
        self.labels = self._take("<u4", total[3])
        self._floats = [self._take("<f4", number) for number in total[3:]]
        # Where each row begins and ends: in the text, column after column, and in each kind of floats.
        text = self._at + np.concatenate([[0], lengths[:, :3].T.reshape(-1).cumsum()])
        self._texts = [text[column * count : (column + 1) * count + 1].tolist() for column in range(3)]
        self._parts = [np.concatenate([[0], column.cumsum()]).tolist() for column in lengths[:, 3:].T]
        self._at = int(text[-1])
        self._novelty = self._take("<f4", count) if self._at < len(data) else np.full(count, np.nan, np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def row(self, index: int, names: Names) -> Row:
        """One of the rows."""
        path, reason, taken = (
            self._data[bounds[index] : bounds[index + 1]].decode("utf-8", "surrogatepass") for bounds in self._texts
        )
        part = [slice(bounds[index], bounds[index + 1]) for bounds in self._parts]
        scores, open_scores, embeddings = self._floats
        size, time = self._stamps[index].tolist()
        novelty = self._novelty[index].item()
        return Row(
            path=path,
            status=_STATUS[self._status[index]],
            reason=reason,
            labels=names.names(self.labels[part[0]].tolist()),
            scores=tuple(scores[part[0]].tolist()),
            open_scores=tuple(open_scores[part[1]].tolist()),
            novelty=None if math.isnan(novelty) else novelty,
            taken=taken,
            embedding=embeddings[part[2]].astype(np.float32) if part[2].stop > part[2].start else None,
            stamp=(size, time),
        )

    def _take(self, kind: Any, count: int) -> np.ndarray[Any, Any]:
        out = np.frombuffer(self._data, kind, count, self._at)
        self._at += out.nbytes
        return out

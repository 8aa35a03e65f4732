"""A run over any number of pictures that is never lost: the same command goes on where the last one ended.

    inputs ──> known? ── no ──> batches ──> stream ──> rows ──> journal ──> output, in the order of inputs
                 └────── yes ───────────────────────────────────────┘

An input is known if the journal has a row of the same path, size and time of change. Of what is known nothing is read,
and a run that finds everything known calls no stream, so that no network need be loaded for it. Which pictures go
together follows from their places among the inputs, and the output is written from the journal alone; so a run that was
broken off ends with the same bytes as one that was not.

Files that were missing, or could not be opened, are tried again when they can be.
"""

from array import array
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from birder.errors import ConfigError
from birder.files import remove_leftovers
from birder.inference.bulk.inputs import NO_STAMP, Numbers, Stamp, blocks, check_batch_size, keys, opens, stamp_of
from birder.inference.bulk.journal import Journal, open_journal
from birder.inference.bulk.known import UNKNOWN
from birder.inference.rows import Row

Stream: TypeAlias = Callable[[Iterable[list[str]]], Generator[list[Row], None, None]]
"""Batches of paths to their rows: a list for each batch, a row for each path, in the same order. It is closed when the
run is broken off."""

_Key: TypeAlias = tuple[int, int]

LOCK_TIMEOUT_S = 2.0
"""How long another run with the same output may take to end."""

_TRY_AGAIN = {"missing", "permission", "link_loop", "unreadable", "needs_plugin", "timeout", "memory"}
"""What can go by without a change of size or time."""
_SAME_AS = 1 << 63  # with this bit, a place holds the number of an input with the same path, else that of a row


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the rows of a run go."""

    path: Path
    """The file; ``.journal`` is added to its name for the journal beside it."""
    write: Callable[[Iterator[Row]], None]
    """Writes the whole file from all rows, in one go and atomically."""
    beside: tuple[Path, ...] = ()
    """Further files that ``write`` makes."""

    @property
    def journal(self) -> Path:
        """The journal of this target."""
        return self.path.with_name(f"{self.path.name}.journal")

    def stamps(self) -> list[list[int]]:
        """Sizes and times of the files."""
        return [list(stamp_of(str(path))) for path in (self.path, *self.beside)]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run came to."""

    inputs: int
    """Pictures asked for."""
    kept: int
    """Of these, known from before."""
    predicted: int
    """Of these, gone through the network now, or found unreadable."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How many rows are ``ok``, ``unsure`` and ``error``."""
    codes: dict[str, int] = field(default_factory=dict)
    """How many rows have a reason of each code."""
    written: bool = True
    """Whether the output was written; not if it was there already, with just these rows."""
    changes: str = ""
    """What is different from the inputs of the last finished run, in words; empty without one, or if nothing is."""
    notes: tuple[str, ...] = ()
    """What was found damaged in the journal, in words."""


def run(
    paths: Iterable[str],
    stream: Stream,
    target: Target,
    *,
    identity: Mapping[str, Any],
    batch_size: int | Callable[[], int],
    restart: bool = False,
    report: Callable[[Sequence[Row], int], None] = lambda rows, done: None,
) -> Summary:
    """Predict what is not yet known, and write the output if it is not as it should be.

    Args:
        paths: The inputs, taken as needed. Of a path that comes twice the second gets the row of the first.
        stream: Called once, if something is to be predicted; it may load the network then.
        target: Where the rows go.
        identity: What must be the same for rows to belong together, such as the model's digest and the options: a flat
            dict of what JSON can hold.
        batch_size: Pictures at most in one batch; a function is asked when there is something to predict.
        restart: Forget what was done before.
        report: Called with the rows of each batch when they are safe, and how many inputs are done in all.

    Raises:
        ConfigError: Another process has the output, the journal is of a run with other options, or the disk is full.
    """
    with locked(target), open_journal(target.journal, identity, restart=restart) as journal:
        return one_round(paths, stream, target, journal, batch_size=batch_size, report=report)


def one_round(
    paths: Iterable[str],
    stream: Stream,
    target: Target,
    journal: Journal,
    *,
    batch_size: int | Callable[[], int],
    report: Callable[[Sequence[Row], int], None],
) -> Summary:
    """What ``run`` does, with a journal that is open and may be used again."""
    walk = _Walk(paths, journal, batch_size)
    todo = iter(walk)
    first = next(todo, None)
    if first is not None:
        with closing(stream(chain([first], todo))) as stream_of_rows:
            for rows in stream_of_rows:
                report(walk.note(rows), walk.done)
    walk.end()
    places = walk.places
    facts = {"inputs": len(places), "rows": blake2b(places, digest_size=16).hexdigest()}
    before = journal.finished
    counts = {name: before.get(name, {}) for name in ("statuses", "codes")}
    written = any(before.get(name) != value for name, value in facts.items()) or before["files"] != target.stamps()
    if written:
        counts = _write(target, journal, places)
        journal.finish({**facts, **counts, "files": target.stamps()})
    return Summary(
        inputs=len(places),
        kept=walk.kept,
        predicted=len(places) - walk.kept,
        written=written,
        changes=walk.changes(before),
        notes=tuple(journal.notes),
        **counts,
    )


@contextmanager
def locked(target: Target) -> Iterator[None]:
    """No other process works at this output while the body runs.

    Raises:
        ConfigError: One does already, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target.path.with_name(f".{target.path.name}.lock"))
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise ConfigError(f"another process writes {target.path}: wait for it, or name another --output") from error
    except OSError as error:
        raise ConfigError(f"{target.path} cannot be written: {error.strerror or error}") from error
    try:
        for path in (target.path, *target.beside, target.journal):
            remove_leftovers(path)
        yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    inputs: list[int]
    """Their places among all inputs."""
    paths: list[str]
    """Of each of them, as all that follows."""
    stamps: list[Stamp]
    """What they looked like when they were come to."""
    keys: list[_Key]
    """Of path and stamp."""


class _Walk:
    """One way through the inputs: batches of those that are to be predicted, and for each input the place of its row.

    Attributes:
        places: For each input, the number of its row in the journal.
        kept: How many inputs were known before.
    """

    def __init__(self, paths: Iterable[str], journal: Journal, batch_size: int | Callable[[], int]) -> None:
        self.places = array("Q")
        self.kept = self._noted = self._again = self._new = self._modified = 0
        self._before = journal.next_number
        self._paths = paths
        self._journal = journal
        self._batch_size = batch_size
        # The stream may take batches in a thread of its own while rows are noted in another.
        self._begun: dict[_Key, int] = {}  # inputs that have no rows yet
        self._open: deque[_Batch] = deque()  # batches of these

    @property
    def done(self) -> int:
        """Inputs that have their row, or will have that of another."""
        return self.kept + self._noted + self._again

    def __iter__(self) -> Iterator[list[str]]:
        for block in blocks(self._paths):
            base = len(self.places)
            stamps = [stamp_of(path) for path in block]
            names, files = keys(block, stamps)
            pairs = list(zip(names.tolist(), files.tolist(), strict=True))
            fresh = self._settle(block, names, files, pairs)
            if not fresh:
                continue
            if not isinstance(self._batch_size, int):
                self._batch_size = self._batch_size()
            check_batch_size(self._batch_size)
            for start in range(0, len(block), self._batch_size):
                chosen = [index for index in fresh if start <= index < start + self._batch_size]
                if chosen:
                    batch = _Batch(
                        inputs=[base + index for index in chosen],
                        paths=[block[index] for index in chosen],
                        stamps=[stamps[index] for index in chosen],
                        keys=[pairs[index] for index in chosen],
                    )
                    self._open.append(batch)
                    yield batch.paths

    def _settle(self, block: list[str], names: Numbers, files: Numbers, pairs: list[_Key]) -> list[int]:
        """Give each input of a block its place; indices of those that have to be predicted first."""
        known, base, fresh = self._journal.known, len(self.places), []
        begun = [self._begun.get(pair) for pair in pairs]  # before looking at the rows, where they are next
        found = known.find(names, files)
        if (found == UNKNOWN).any():
            self._still_closed(block, found)
        for index in np.flatnonzero(found == UNKNOWN).tolist():
            earlier = begun[index] if begun[index] is not None else self._begun.get(pairs[index])
            if earlier is None:
                earlier = self._begun[pairs[index]] = base + index
                fresh.append(index)
            found[index] = _SAME_AS | earlier
        if fresh:
            modified = int(known.has_path(names[fresh]).sum())
            self._modified += modified
            self._new += len(fresh) - modified
        kept = int((found < self._before).sum())
        self.kept += kept
        self._again += len(block) - kept - len(fresh)
        self.places.frombytes(found.tobytes())
        return fresh

    def _still_closed(self, block: list[str], found: Numbers) -> None:
        """Rows of files that could not be opened stand as long as that is so, whatever the stamps."""
        closed = self._journal.known.find(*keys(block, [NO_STAMP] * len(block)))
        for index in np.flatnonzero((found == UNKNOWN) & (closed != UNKNOWN)):
            if not opens(block[index]):
                found[index] = closed[index]

    def note(self, rows: Sequence[Row]) -> list[Row]:
        """Put the rows of the next batch into the journal; they are returned with their stamps."""
        batch = self._open.popleft()
        assert [row.path for row in rows] == batch.paths, "a row for each path, in their order"
        rows = [replace(row, stamp=_stamp(row, stamp)) for row, stamp in zip(rows, batch.stamps, strict=True)]
        places = self._journal.append(rows).tolist()
        for number, key, place in zip(batch.inputs, batch.keys, places, strict=True):
            self.places[number] = place
            del self._begun[key]
        self._noted += len(rows)
        return rows

    def end(self) -> None:
        """All batches have their rows: give inputs that came twice the place of the first."""
        assert not self._open, "the stream ended before the inputs"
        places = np.frombuffer(self.places, np.uint64)
        twice = np.flatnonzero(places >> np.uint64(63))
        places[twice] = places[(places[twice] ^ np.uint64(_SAME_AS)).astype(np.int64)]
        self._journal.sync()

    def changes(self, before: Mapping[str, Any]) -> str:
        """What is different from the last finished run, in words."""
        removed = max(0, before.get("inputs", 0) - self.kept - self._modified)
        counts = {"new": self._new if before else 0, "removed": removed, "modified": self._modified}
        words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"{words} since; the others are kept" if words else ""


def _stamp(row: Row, walked: Stamp) -> Stamp:
    """What a row is recognised by. Of errors it is what the walk saw, as reading may have seen nothing."""
    if row.status == "error":
        return NO_STAMP if row.code in _TRY_AGAIN else walked
    return walked if row.stamp == NO_STAMP else row.stamp


def _write(target: Target, journal: Journal, places: "array[int]") -> dict[str, dict[str, int]]:
    """Write the output, and count what is in it."""
    statuses: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def counted() -> Iterator[Row]:
        for row in journal.rows(places):
            statuses[row.status] += 1
            if row.reason:
                codes[row.code] += 1
            yield row

    try:
        target.write(counted())
    except (OSError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{target.path} could not be written: {reason}. All rows are kept in {target.journal}: "
            f"with that mended, the same command writes them"
        ) from error
    return {"statuses": dict(statuses), "codes": dict(codes)}

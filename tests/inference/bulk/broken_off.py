"""A run with an invented network, to be broken off: ``python broken_off.py OUTPUT FOLDER SECONDS [watch]``.

The answers follow from the bytes of a file and, as those of a real network do, a little from who is in its batch.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from birder.errors import ConfigError
from birder.files import atomic
from birder.inference.bulk.inputs import stamp_of
from birder.inference.bulk.run import Stream, Summary, Target, run
from birder.inference.bulk.watch import watch
from birder.inference.rows import Row

LABELS = ("Hawfinch", "Twite", "Brambling", "Łosoś\nwith a line", "Wren")
IDENTITY = {"model": "a" * 64, "top": 2, "min_score": 0.3, "backend": "invented fp32", "batch_size": 7}
BATCH_SIZE = 7


def answer(path: str, company: bytes, *, embeddings: bool = False) -> Row:
    """What the invented network says."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return Row(path=path, status="error", reason="missing: the file does not exist")
    except OSError as error:
        return Row(path=path, status="error", reason=f"unreadable: {error.strerror}")
    stamp = stamp_of(path)
    if content.startswith(b"bad"):
        return Row(path=path, status="error", reason="damaged: it begins with bad", stamp=stamp)
    seed = int.from_bytes(hashlib.blake2b(content + company, digest_size=4).digest())
    numbers = np.random.default_rng(seed)
    scores = np.sort(numbers.random(2).astype(np.float32))[::-1]
    labels = numbers.permutation(len(LABELS))[:2]
    return Row(
        path=path,
        status="ok" if scores[0] >= 0.3 else "unsure",
        labels=tuple(LABELS[label] for label in labels),
        scores=tuple(scores.tolist()),
        open_scores=tuple((scores / 2).tolist()),
        taken="2026-05-17T06:12:44" if len(content) % 2 else "",
        embedding=numbers.random(3, dtype=np.float32) if embeddings else None,
        stamp=stamp,
    )


def invented(*, seconds: float = 0.0, seen: list[str] | None = None, embeddings: bool = False) -> Stream:
    """A stream of its answers; it takes so long for a batch, and notes which paths it was given."""

    def stream(batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        ahead: list[list[str]] = []
        for batch in batches:
            if seen is not None:
                seen.extend(batch)
            ahead.append(batch)
            if len(ahead) > 2:  # as readers are ahead of the network
                yield rows(ahead.pop(0))
        for batch in ahead:
            yield rows(batch)

    def rows(batch: list[str]) -> list[Row]:
        time.sleep(seconds)
        company = "\n".join(batch).encode("utf-8", "surrogateescape")
        return [answer(path, company, embeddings=embeddings) for path in batch]

    return stream


def text(row: Row) -> bytes:
    """Everything about a row but its stamp, exactly."""
    embedding = None if row.embedding is None else row.embedding.tolist()
    parts = (row.path, row.status, row.reason, row.labels, row.scores, row.open_scores, row.taken, embedding)
    return ascii(parts).encode() + b"\n"


def target(path: Path) -> Target:
    """A text file of rows."""

    def write(rows: Iterator[Row]) -> None:
        with atomic(path) as temporary, open(temporary, "wb") as file:
            file.writelines(map(text, rows))

    return Target(path=path, write=write)


def predict(paths: Iterable[str], output: Path, stream: Stream | None = None, **changes: Any) -> Summary:
    """A run as the command would start it."""
    options: dict[str, Any] = {"identity": IDENTITY, "batch_size": BATCH_SIZE, **changes}
    return run(paths, stream or invented(), target(output), **options)


def found(folder: Path) -> Callable[[], list[str]]:
    """The inputs in a folder, as they are when asked for."""
    return lambda: sorted(map(str, folder.rglob("*.jpg")))


def main() -> int:
    """Run it."""
    output, folder, seconds, *rest = sys.argv[1:]
    stream = invented(seconds=float(seconds))
    try:
        if rest:
            watch(
                found(Path(folder)),
                stream,
                target(Path(output)),
                identity=IDENTITY,
                batch_size=BATCH_SIZE,
                interval_s=0.1,
                finished=lambda summary: print(summary.inputs, summary.predicted, summary.written, flush=True),
            )
        else:
            summary = predict(found(Path(folder))(), Path(output), stream)
            print(summary.inputs, summary.kept, summary.predicted, summary.written)
    except ConfigError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

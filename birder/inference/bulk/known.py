"""Which inputs are known, by their keys, in 24 bytes for each."""

from threading import Lock
from typing import TypeAlias

import numpy as np

from birder.inference.bulk.inputs import Numbers

UNKNOWN = np.uint64(2**64 - 1)
"""What is found for an input that is not there."""

_PENDING = 8192  # keys that are kept in a dict, before they are sorted
_LONG = 1 << 18  # keys in a sorted run from which on it is not put together with others, which would need memory twice

_Run: TypeAlias = tuple[Numbers, Numbers, Numbers]


class Known:
    """Keys of inputs (see ``inputs.keys``), each with a number. Of the same key the newest counts.

    One thread may add while another finds.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._lock = Lock()
        # Sorted runs, each long or at least twice the next, so that few are searched and adding stays cheap.
        self._runs: list[_Run] = []
        self._pending: dict[tuple[int, int], int] = {}
        self._pending_paths: set[int] = set()

    def add(self, paths: Numbers, files: Numbers, numbers: Numbers) -> None:
        """Note (N,) keys of paths, (N,) keys of paths and stamps, and (N,) numbers, which are below 2^64 - 1."""
        with self._lock:
            if len(paths) >= _PENDING:
                self._flush()
                self._append((paths, files, numbers))
                return
            names = paths.tolist()
            self._pending.update(zip(zip(names, files.tolist(), strict=True), numbers.tolist(), strict=True))
            self._pending_paths.update(names)
            if len(self._pending) >= _PENDING:
                self._flush()

    def find(self, paths: Numbers, files: Numbers) -> Numbers:
        """(N,) the number of each key; ``UNKNOWN`` where there is none."""
        with self._lock:
            return self._found(paths, files)

    def _found(self, paths: Numbers, files: Numbers) -> Numbers:
        found = np.full(len(paths), UNKNOWN)
        for names, contents, numbers in self._runs:  # the newest last, which overwrites
            first, behind = np.searchsorted(names, paths, "left"), np.searchsorted(names, paths, "right")
            last = np.maximum(behind, 1) - 1
            hit = (behind > first) & (contents[last] == files)
            found[hit] = numbers[last[hit]]
            for index in np.flatnonzero((behind - first > 1) & ~hit):  # a file that has changed since, and back
                same = np.flatnonzero(contents[first[index] : behind[index]] == files[index])
                if len(same):
                    found[index] = numbers[first[index] + same[-1]]
        if self._pending:
            for place, key in enumerate(zip(paths.tolist(), files.tolist(), strict=True)):
                found[place] = self._pending.get(key, found[place])
        return found

    def has_path(self, paths: Numbers) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(N,) whether anything is known of each path, with whatever stamp."""
        with self._lock:
            found = np.array([name in self._pending_paths for name in paths.tolist()], bool)
            for names, _, _ in self._runs:
                found |= np.searchsorted(names, paths, "right") > np.searchsorted(names, paths, "left")
            return found

    def _flush(self) -> None:
        if self._pending:
            keys = np.array(list(self._pending), np.uint64)
            numbers = np.fromiter(self._pending.values(), np.uint64, len(self._pending))
            self._pending, self._pending_paths = {}, set()
            self._append((keys[:, 0], keys[:, 1], numbers))

    def _append(self, run: _Run) -> None:
        parts = [run]
        while self._runs and len(self._runs[-1][0]) < min(_LONG, 2 * sum(len(paths) for paths, _, _ in parts)):
            parts.insert(0, self._runs.pop())
        paths, files, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(paths, kind="stable")  # of the same key the newest stays last
        self._runs.append((paths[order], files[order], numbers[order]))

"""A run from a model and paths to a file of results that is never lost: what ``birder predict --output`` does."""

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import birder
from birder.data.folders import find_images
from birder.errors import ConfigError, DataError, Stopped
from birder.hub import checksum
from birder.hub.fetch import locate
from birder.inference.bulk.inputs import shard
from birder.inference.bulk.run import Summary, Target, run
from birder.inference.bulk.watch import watch
from birder.inference.machine import facts
from birder.inference.options import Options
from birder.inference.results.formats import ARRAY, index_of
from birder.inference.results.output import check_output, open_output
from birder.inference.results.run_file import Run, read_run, write_run
from birder.inference.rows import Row

if TYPE_CHECKING:
    from birder.inference.cluster import Cluster
    from birder.inference.predictor import Predictor

logger = logging.getLogger("birder")

Report: TypeAlias = Callable[[Sequence[Row], int], None]
"""Called with the rows of each batch when they are safe, and how many inputs are done in all."""

_DECIDED = ("backend", "precision", "batch_size")  # on which the last decimals of a score depend


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run is of, and where its results go."""

    model: str
    """Name of a published model, or a model file."""
    paths: tuple[Path, ...]
    """Pictures, and folders that are searched for pictures."""
    output: Path
    """File of results: .csv, .jsonl or .parquet; of embeddings .parquet or .npy."""
    options: Options = Options()
    """How to read and to compute, and what to say."""
    network: str | None = None
    """Name of the network, if the model file does not tell."""
    embeddings: bool = False
    """Embeddings in place of names."""
    part: tuple[int, int] | None = None
    """(k, n): only part k of n of the pictures, 1 to n; None is all of them."""
    cluster: Literal["ray"] | None = None
    """What computes: the machines of a Ray cluster; None is this one. The results are the same."""

    def run(self, *, restart: bool = False, report: Report = lambda rows, done: None) -> Summary:
        """Do what is not done yet.

        Args:
            restart: Forget what was done before.
            report: Called with the rows of each batch.

        Raises:
            DataError: There are no pictures, or no process that reads can be started.
            ConfigError: The output belongs to a run of another model or with other options, another process writes it,
                it cannot be written, or nothing here computes the network as was asked.
            ModelFileError: The file is no usable model.
            MissingPackage: Ray is not installed, or what else was asked for.
            Stopped: By Ctrl-C; what is done is kept, and the same goes on from there.
        """
        with closing(_Work(self, restart=restart)) as work:
            try:
                return work.once(report)
            except KeyboardInterrupt as error:
                raise Stopped(
                    f"stopped; what is done is kept in {work.target.journal}, and the same goes on"
                ) from error

    def watch(
        self,
        *,
        interval_s: float = 10.0,
        restart: bool = False,
        report: Report = lambda rows, done: None,
        finished: Callable[[Summary], None] = lambda summary: None,
    ) -> None:
        """Do what there is, and then what arrives, until Ctrl-C or SIGTERM.

        Args:
            interval_s: Seconds between two looks.
            restart: Forget what was done before.
            report: Called with the rows of each batch.
            finished: Called after each look.

        Raises:
            ConfigError: As in ``run``; and the others.
        """
        with closing(_Work(self, restart=restart)) as work:
            work.again_and_again(interval_s, report, finished)


class _Work:
    """A job that is being done. The model is loaded when there is something to predict."""

    def __init__(self, job: Job, *, restart: bool) -> None:
        check_output(job.output, embeddings=job.embeddings)
        self.job, self.restart = job, restart
        self.model, self.published = locate(job.model)
        self.digest = checksum.sha256(self.model)
        before = None if restart else read_run(job.output)
        # What an earlier run with the same question had decided is kept to, broken off or finished.
        same = (
            before is not None
            and {*_DECIDED, "device", "versions"} <= before.settings.keys()
            and (before.model.get("sha256"), before.options) == (self.digest, self.asked())
        )
        self.before = self.last = before if same else None
        self.predictor: Predictor | Cluster | None = None
        self.listed = sha256()
        self.began, self.clock = _now(), time.monotonic()

    def close(self) -> None:
        if self.predictor is not None:
            self.predictor.close()

    def once(self, report: Report) -> Summary:
        inputs = self.inputs()
        first = next(inputs, None)
        if first is None and self.job.part is None:
            raise DataError(f"no pictures in {', '.join(map(str, self.job.paths))}")
        summary = run(
            chain([] if first is None else [first], inputs),
            self.stream,
            self.target,
            identity=self.identity(),
            batch_size=lambda: self.loaded.batch_size,
            restart=self.restart,
            report=report,
        )
        self.account_for(summary)
        return summary

    def again_and_again(self, interval_s: float, report: Report, finished: Callable[[Summary], None]) -> None:
        def looked(summary: Summary) -> None:
            self.account_for(summary)
            finished(summary)

        watch(
            self.inputs,
            self.stream,
            self.target,
            identity=self.identity(),
            batch_size=lambda: self.loaded.batch_size,
            interval_s=interval_s,
            restart=self.restart,
            report=report,
            finished=looked,
        )

    def inputs(self) -> Iterator[str]:
        """The paths of this part; the checksum of all paths tells whether parts are of one whole."""
        self.listed = sha256()
        paths = self._noted(map(os.fspath, find_images(self.job.paths)))
        return paths if self.job.part is None else shard(paths, *self.job.part)

    def _noted(self, paths: Iterable[str]) -> Iterator[str]:
        for path in paths:
            self.listed.update(os.fsencode(path) + b"\0")
            yield path

    def identity(self) -> dict[str, Any]:
        """What must be the same for rows to stand in one table."""
        return {
            "command": "embed" if self.job.embeddings else "predict",
            "model": self.digest,
            "network": self.job.network,
            "birder": birder.__version__,
            "part": None if self.job.part is None else "{}/{}".format(*self.job.part),
            **self.asked(),
        }

    def asked(self) -> dict[str, Any]:
        """The options, with the content of a checklist in place of its name."""
        options, classes = self.job.options.asked(), self.job.options.classes
        try:
            return options | {"classes": None if classes is None else checksum.compute(classes)[:16]}
        except OSError as error:
            raise ConfigError(f"{classes}: the checklist cannot be read: {error.strerror or error}") from error

    @cached_property
    def target(self) -> Target:
        path = self.job.output
        return Target(path=path, write=self.write, beside=(index_of(path),) if path.suffix.lower() == ARRAY else ())

    @property
    def loaded(self) -> "Predictor | Cluster":
        """The predictor, made when it is first asked for."""
        if self.predictor is None:
            self.predictor = self._load()
            # So that this is known to whoever goes on, should the run be broken off.
            write_run(self.job.output, self.account(self.predictor))
        return self.predictor

    def _load(self) -> "Predictor | Cluster":
        # Imported here, as it takes a while, and often there is nothing to do.
        decided: dict[str, Any] = {name: self.before.settings[name] for name in _DECIDED} if self.before else {}
        if self.job.options.batch_size is not None:  # as after a batch that was too large for the memory
            decided.pop("batch_size", None)
        options = replace(self.job.options, **decided)
        try:
            predictor = self._maker()(
                self.model, options, network=self.job.network or self.published, embeddings=self.job.embeddings
            )
        except ConfigError as error:
            if options == self.job.options:
                raise
            begun = " ".join(map(str, decided.values()))
            raise ConfigError(
                f"the run was begun with {begun}: {error}; --restart begins again with another"
            ) from error
        self._tell_of_change(predictor)
        return predictor

    def _maker(self) -> "type[Predictor] | type[Cluster]":
        # Imported here, as it takes a while, and often there is nothing to do.
        if self.job.cluster is not None:
            from birder.inference.cluster import Cluster

            return Cluster
        from birder.inference.predictor import Predictor

        return Predictor

    def _tell_of_change(self, predictor: "Predictor | Cluster") -> None:
        """Say if rows that are there were computed by something else than those that will come."""
        then, now = self.before.settings if self.before else {}, predictor.chosen.settings
        changed = [
            f"{name} {then[name]} → {now[name]}" for name in ("device", "versions") if then and then[name] != now[name]
        ]
        if changed:
            logger.warning(
                "rows that are there were computed otherwise: %s; --restart begins again", "; ".join(changed)
            )

    def stream(self, batches: Iterable[list[str]]) -> Generator[list[Row], None, None]:
        yield from self.loaded.run(batches)

    def write(self, rows: Iterator[Row]) -> None:
        with open_output(self.job.output, self.loaded.layout) as file:
            file.write(rows)

    def account(self, predictor: "Predictor | Cluster") -> Run:
        """What is known of the run while it goes on."""
        return Run(
            command="embed" if self.job.embeddings else "predict",
            line=sys.argv,
            model={
                "name": self.job.model,
                "file": str(self.model),
                "sha256": self.digest,
                "network": predictor.network_name,
                "size": list(predictor.size),
                "classes": len(predictor.names),
            },
            options=self.asked(),
            settings=predictor.chosen.settings,
            backend=str(predictor.chosen.way),
            chosen=predictor.chosen.sentence,
            inputs=[str(path) for path in self.job.paths],
            shard=None if self.job.part is None else list(self.job.part),
            started=self.began,
            machine=facts(),
        )

    def account_for(self, summary: Summary) -> None:
        """Write down what the run came to, if there is anything new."""
        listed, last = self.listed.hexdigest(), self.last
        if not summary.written and last is not None and last.finished and last.listed == listed:
            return
        # Other parts may have got pictures, or an earlier run have died before its last word.
        finished = replace(
            self.account(self.loaded) if summary.written or last is None else last,
            listed=listed,
            inputs=[str(path) for path in self.job.paths],
            statuses=summary.statuses,
            codes=summary.codes,
            finished=_now(),
            seconds=round(time.monotonic() - self.clock, 1),
        )
        write_run(self.job.output, finished)
        self.last = finished


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""``run.json``: what made a file of results, beside it under ``NAME.run.json``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import birder
from birder.errors import ConfigError, DataError
from birder.files import write_text


@dataclass(frozen=True, kw_only=True)
class Run:
    """What made a file of results, in plain values."""

    command: str
    """The command: predict or embed."""
    model: dict[str, Any]
    """``name``, ``file``, ``sha256`` of the file, ``network``, ``size`` (height, width), number of ``classes``."""
    options: dict[str, Any]
    """All options that change a row."""
    backend: str
    """What computed, such as ``openvino bf16``."""
    chosen: str = ""
    """Why, in a sentence."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was decided: backend, precision, size of batches, threads, device, versions of what computes."""
    line: list[str] = field(default_factory=list)
    """The command as it was typed, word by word."""
    inputs: list[str] = field(default_factory=list)
    """Files and folders, as they were given."""
    listed: str = ""
    """Checksum of the paths of all pictures, those of other parts too; parts that belong together have the same."""
    shard: list[int] | None = None
    """[k, n] of part k of n; None of a whole run."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How many rows have each status."""
    codes: dict[str, int] = field(default_factory=dict)
    """How many rows have each reason."""
    started: str = ""
    """When, as ``2026-05-17T06:12:44+00:00``; of a run that was stopped in between, the last start."""
    finished: str = ""
    """When the last row was there; empty until then."""
    seconds: float = 0.0
    """What the process that finished it has spent, or, of merged parts, all of theirs together."""
    birder: str = birder.__version__
    """Version of birder."""
    machine: dict[str, Any] = field(default_factory=dict)
    """See ``birder.inference.machine.facts``."""
    parts: list[str] = field(default_factory=list)
    """Names of the files that this one was merged from."""

    @property
    def pictures(self) -> int:
        """How many rows there are."""
        return sum(self.statuses.values())

    def differs(self, other: "Run") -> str:
        """What keeps rows of two runs from standing in one table, in words; empty if nothing does."""
        mine, theirs = self._kind(), other._kind()
        for name in dict.fromkeys([*mine, *theirs]):
            if mine.get(name) != theirs.get(name):
                return f"{name} is {mine.get(name)} in one and {theirs.get(name)} in the other"
        return ""

    def _kind(self) -> dict[str, Any]:
        options, settings = json.loads(json.dumps([self.options, self.settings]))  # as read back: tuples are lists
        if settings.get("device") == "cpu":  # where each core computes a picture of its own
            settings = {name: value for name, value in settings.items() if name not in ("batch_size", "threads")}
        return {
            "the command": self.command,
            "the checksum of the model": self.model.get("sha256"),
            "the version of birder": self.birder,
            "the backend": self.backend,
            **{f"the option {name}": value for name, value in options.items()},
            **{f"the setting {name}": value for name, value in settings.items()},
        }


def run_file(output: str | Path) -> Path:
    """Where the account of a file of results lies: ``results.csv.run.json`` beside ``results.csv``."""
    output = Path(output)
    return output.with_name(f"{output.name}.run.json")


def write_run(output: str | Path, run: Run) -> None:
    """Write the account beside the file of results, atomically.

    Raises:
        ConfigError: It cannot be written.
    """
    path = run_file(output)
    try:
        write_text(path, json.dumps(asdict(run), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def read_run(output: str | Path) -> Run | None:
    """The account of a file of results; None if there is none.

    Raises:
        DataError: It is damaged.
    """
    path = run_file(output)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(Run)}
        run = Run(**{name: value for name, value in values.items() if name in known})  # newer versions may say more
        for name in ("model", "options", "settings", "statuses", "codes"):
            if not isinstance(getattr(run, name), dict):
                raise TypeError(f"{name} is no object")
        sum(run.statuses.values())
        return run
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it, and its results are taken as any table") from error


def merged(runs: Mapping[str, Run]) -> Run:
    """The account of the table that parts were merged to, by their files' names.

    The runs are of one kind; see ``Run.differs``. ``seconds`` is the sum of theirs.
    """
    first = next(iter(runs.values()))
    machines = [run.machine for run in runs.values()]
    whole = first.shard is not None
    values = asdict(first) | {
        "line": [],
        "inputs": first.inputs if whole else [path for run in runs.values() for path in run.inputs],
        "listed": first.listed if whole else "",
        "shard": None,
        "statuses": _added(run.statuses for run in runs.values()),
        "codes": _added(run.codes for run in runs.values()),
        "started": min(run.started for run in runs.values()),
        "finished": max(run.finished for run in runs.values()),
        "seconds": sum(run.seconds for run in runs.values()),
        "machine": machines[0] if all(other == machines[0] for other in machines) else {"several": len(machines)},
        "parts": list(runs),
    }
    return Run(**values)


def _added(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total

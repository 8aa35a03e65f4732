"""From a recipe to a run folder."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

import birder
from birder.data.augment import varies
from birder.data.loader import Pictures, TrainingSet, training_batches
from birder.data.order import steps_per_epoch
from birder.data.samples import Samples, read_pictures, read_samples
from birder.data.transforms import classification_transform
from birder.distributed import added, as_primary, primary, processes, rank, said_by_primary, world_size
from birder.errors import BirderError, ConfigError, DataError, NotFinite, Stopped
from birder.model_file import ModelInfo, save_model
from birder.networks import Network
from birder.objectives.base import Objective
from birder.objectives.teacher import warn_of_start
from birder.signature import make_signature
from birder.training.checkpoints import read_checkpoint
from birder.training.clock import Clock, peak_memory_mib
from birder.training.engine import Engine
from birder.training.feed import Feed
from birder.training.folder import RunFolder, open_folder
from birder.training.interrupt import Interrupt
from birder.training.logbook import Logbook, Means, summary
from birder.training.machine import resolve, training_device
from birder.training.parallel import prepared, whole_network
from birder.training.recipe import Recipe
from birder.training.start import Start
from birder.training.validate import named, represented

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("birder")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A finished run."""

    folder: Path
    """Where all files are."""
    model: Path
    """The best model; without labels, the last."""
    top1: float | None
    """Its accuracy on the validation pictures, 0-1; None without these. Without labels, the best share of them
    that was named right after its neighbours."""


def fit(recipe: Recipe, out: Path | None = None, *, console: "Console | None" = None) -> Fitted:
    """Train a network as a recipe says; a run that was stopped goes on where its newest checkpoint stands.

    Started by torchrun, all processes train together, and the first writes the folder.

    Args:
        recipe: Every choice of the run.
        out: Folder of the run; None is ``runs/NETWORK``, or the next free ``runs/NETWORK-2`` …
        console: Where progress is shown; None for nowhere.

    Raises:
        ConfigError: An option that does not fit, or a folder that holds another run.
        DataError: Pictures that cannot be used.
        NotFinite: The loss became no number.
        Stopped: Someone asked the process to stop; the same call goes on.
    """
    device = training_device(recipe.run)
    with processes(device):
        # By a function, so that nothing here holds what speaks to the other processes when they part.
        return _fitted(recipe, out, console if primary() else None, device)


def _fitted(recipe: Recipe, out: Path | None, console: "Console | None", device: torch.device) -> Fitted:
    recipe = resolve(recipe, device)
    torch.set_num_threads(recipe.run.threads)
    start = Start(recipe, _saved_start(recipe, out))
    samples, validation = _pictures(recipe)
    training = _Training(start, samples, validation, device)
    folder = said_by_primary(lambda: open_folder(start.recipe, out))
    with folder.locked() if primary() else nullcontext(), training.interrupt.listening():
        training.run(folder, Logbook(folder.metrics, console, tensorboard=recipe.run.tensorboard and primary()))
    # What learns without labels is not done before the end, whatever its neighbours say on the way.
    model = folder.best if recipe.objective.labelled else folder.last
    return Fitted(folder=folder.path, model=model, top1=training.best)


def _pictures(recipe: Recipe) -> tuple[Samples, Samples | None]:
    """Those to learn from, and those to validate on, if there are any."""
    data, val = Path(recipe.data), Path(recipe.val) if recipe.val else None
    if not recipe.objective.labelled:
        if val is not None and val.resolve().is_relative_to(data.resolve()):
            logger.warning("%s lies in %s: its pictures are learned from, too, without their labels", val, data)
        return read_pictures(data), read_samples(val) if val else None
    samples = read_samples(data)
    return samples, read_samples(val, samples.class_to_idx) if val else None


def _saved_start(recipe: Recipe, out: Path | None) -> dict[str, Any] | None:
    """What the newest checkpoint of a run knows of its start, which may be gone by now."""
    if recipe.start is None or out is None:
        return None
    newest = RunFolder(out).checkpoints(recipe.run.keep).newest(lambda line: None)  # it is read and told of again
    return read_checkpoint(newest).get("start") if newest is not None else None


class _Training:
    """The parts of one run, put together."""

    def __init__(self, start: Start, samples: Samples, validation: Samples | None, device: torch.device) -> None:
        self.recipe = recipe = start.recipe
        self.start = start.state_dict()
        self.samples = samples
        self.fingerprint = samples.fingerprint()
        self.validation = validation
        self.device = device
        self.length = steps_per_epoch(len(samples), recipe.batch_size)
        self.stats = start.rgb_stats
        self.epochs = 0
        self.best: float | None = None

        torch.manual_seed(recipe.run.seed)
        self.network = start.network(samples.class_to_idx).to(device)
        self.size = self.network.size
        objective = start.objective(self.network, samples).to(device)
        _check_goes_with(objective, recipe)
        call = prepared(objective, recipe.run)
        self.engine = Engine(objective, recipe, steps_per_epoch=self.length, call=call)
        if primary():
            warn_of_start(objective, self.engine.steps)
        self.transform = classification_transform(self.size, self.stats)
        self.feed = Feed(recipe, self.transform, device)
        self.means, self.recent = Means(), Means()
        self.interrupt = Interrupt()

    def run(self, folder: RunFolder, log: Logbook) -> None:
        """Train from where the newest checkpoint stands to the end."""
        self._restore(folder, log)
        self._introduce(folder, log)
        if self.epochs == self.recipe.epochs:
            return
        batches = self._batches()
        with log.progress(self.engine.steps, self.engine.step):
            while self.epochs < self.recipe.epochs:
                metrics = self._epoch(batches, folder, log)
                if any(added([self.interrupt.asked], self.device)):  # a validation may take long
                    self._stop(folder, log)
                metrics |= self._validated(folder, log)
                self._keep(metrics, folder, log)
                self.epochs += 1
                self.means = Means()
                if primary():
                    log.write("epoch", self.engine.step, epoch=self.epochs, **metrics)
                log.say(summary(self.epochs, self.recipe.epochs, metrics))
                # The checkpoint comes last: whatever it says is done has been written.
                self._save(folder, log)

    def _restore(self, folder: RunFolder, log: Logbook) -> None:
        # All go on from the same, which the first process has found under its lock.
        newest = said_by_primary(lambda: folder.checkpoints(self.recipe.run.keep).newest(log.say))
        if newest is not None:
            state = read_checkpoint(newest)
            if state["pictures"] != self.fingerprint:
                raise ConfigError(
                    f"the pictures of {self.recipe.data} are not those that the run in {folder.path} began with: "
                    "name another folder for a new run"
                )
            self.engine.load_state_dict(state["engine"])
            self.epochs, self.best = state["epochs"], state["best"]
            if primary():  # they are those of all processes
                self.means.load_state_dict(state["means"])
                self.recent.load_state_dict(state["recent"])
        if primary():
            log.rewind(self.engine.step, self.epochs)

    def _introduce(self, folder: RunFolder, log: Logbook) -> None:
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        run, step = self.recipe.run, self.engine.step
        where = f"{run.device} in {run.dtype}" + (f" by {world_size()} processes" if world_size() > 1 else "")
        learned = f"{species} species" if (species := len(self.samples.class_to_idx)) else self.recipe.objective.name
        log.say(
            f"{self.network.name}: {parameters / 1e6:.1f} M parameters, {learned}, "
            f"{len(self.samples):,} pictures at {self.size[0]} x {self.size[1]}, on {where}"
        )
        if self.epochs == self.recipe.epochs:
            log.say(f"{folder.path} is finished: nothing to do")
            if not folder.last.exists():
                log.say(f"{folder.last} is gone, and the checkpoints still have its weights: train with more epochs")
        elif step > 0:
            log.say(f"{folder.path} goes on at step {step} of {self.engine.steps}")
        elif primary():
            log.write(
                "start",
                step,
                birder=birder.__version__,
                torch=torch.__version__,
                processes=world_size(),
                parameters=parameters,
                species=len(self.samples.class_to_idx),
                pictures=len(self.samples),
                validation_pictures=len(self.validation) if self.validation else 0,
            )

    def _batches(self) -> Iterator[Pictures]:
        return training_batches(
            TrainingSet(self.samples, self.feed.look(), self.recipe.run.seed),
            batch_size=self.recipe.batch_size,
            start=self.engine.step,
            stop=self.engine.steps,
            workers=self.recipe.run.workers,
            rank=rank(),
            world=world_size(),
            balance=self.recipe.balance,
            repeats=self.recipe.repeats,
            pin_memory=self.device.type == "cuda",
        )

    def _epoch(self, batches: Iterator[Pictures], folder: RunFolder, log: Logbook) -> dict[str, float]:
        """The steps of the pass that are still to be done; what was measured in all of it."""
        self.engine.objective.train()
        clock = Clock()
        saved = time.monotonic()
        while self.engine.step < (self.epochs + 1) * self.length:
            with clock.waiting():
                pictures = next(batches)
            for path, reason in pictures.unreadable:
                log.write("unreadable", self.engine.step, path=path, reason=reason)
                log.say(f"left out {path}: {reason}")
            due = primary() and time.monotonic() - saved > 60 * self.recipe.run.save_minutes
            too_few = 0 < len(pictures.labels) < self.engine.objective.least  # as some could not be read
            told = added([len(pictures.labels), too_few, self.interrupt.asked, due], self.device)
            count, left_out, stop, save = told
            lr = self.engine.lr
            self._step(pictures, 0 if left_out else int(count), folder)
            clock.pictures += int(count)
            speed = {"lr": lr, **clock.result(), "memory_mib": peak_memory_mib(self.device)}
            if self.engine.step % self.recipe.run.log_every == 0:
                recent, self.recent = self.recent.over_processes(), Means()
                if primary():
                    log.write("steps", self.engine.step, **recent, **speed)
            log.show(self.engine.step, f"{self.epochs + 1}/{self.recipe.epochs}", self.means, speed)
            if stop:
                self._stop(folder, log)
            if save:
                self._save(folder, log)
                saved = time.monotonic()
        result = {**self.means.over_processes(), "lr": self.engine.lr_at(self.epochs * self.length), **clock.result()}
        if "loss" not in result:
            raise DataError(f"not one picture of {self.recipe.data} can be read; {log.path} says why")
        return result

    def _stop(self, folder: RunFolder, log: Logbook) -> NoReturn:
        where = f"stopped at step {self.engine.step} of {self.engine.steps}"
        if self._save(folder, log):
            raise Stopped(f"{where}; the same command goes on")
        raise Stopped(f"{where}, which could not be saved; the same command goes on from the newest checkpoint, if any")

    def _step(self, pictures: Pictures, count: int, folder: RunFolder) -> None:
        if count == 0:
            self.engine.skip_step()  # so that the next one is still what it would have been
            return
        parts = self.feed.parts(pictures)
        try:
            losses = self.engine.train_step(parts, count)
        except NotFinite as error:
            newest = next(iter(folder.checkpoints(self.recipe.run.keep).paths()), None)
            names = ", ".join(pictures.names)
            last = f"; the last good checkpoint is {newest}" if newest else ""
            raise NotFinite(f"{error}{last}; the pictures of the step are {names}") from error
        for means in (self.means, self.recent):
            means.add(losses, len(pictures.labels))

    @contextmanager
    def _result(self) -> Iterator[Network]:
        """The network as it would be used: whole, and averaged if there is an average."""
        with self.engine.averaged():
            network = self.engine.objective.result
            as_primary(network.buffers())  # batch norms have seen other pictures in each process
            yield whole_network(network)

    def _validated(self, folder: RunFolder, log: Logbook) -> dict[str, float]:
        """What the validation says; when it fails, the epoch before it is not lost."""
        try:
            return self._validate()
        except BirderError:
            self._save(folder, log)
            raise

    def _validate(self) -> dict[str, float]:
        due = (self.epochs + 1) % self.recipe.run.validate_every == 0 or self.epochs + 1 == self.recipe.epochs
        labelled, workers = self.recipe.objective.labelled, self.recipe.run.workers
        if not due or (labelled and self.validation is None):
            return {}
        with self._result() as network:
            if labelled and self.validation is not None:
                return named(network, self._info(), self.validation, workers=workers)
            return represented(
                network,
                self.transform,
                self.recipe.augment,
                pictures=self.samples,
                labelled=self.validation,
                workers=workers,
            )

    def _keep(self, metrics: dict[str, float], folder: RunFolder, log: Logbook) -> None:
        """Write the models; a full disk costs them, but for those of the last epoch not the run."""
        top1 = metrics.get("val_top1", metrics.get("val_knn"))
        better = top1 is not None and (self.best is None or top1 > self.best)
        with self._result() as network:
            for path in [folder.last, *([folder.best] if better or self.validation is None else [])]:
                try:
                    if primary():
                        save_model(path, network, class_to_idx=self.samples.class_to_idx, rgb_stats=self.stats)
                except OSError as error:
                    log.say(f"{path} could not be written: {error.strerror or error}")
                    if self.epochs + 1 == self.recipe.epochs:
                        if world_size() == 1:  # others would wait for those that take no part
                            self._save(folder, log)
                        raise
                    better = False
        self.best = top1 if better else self.best

    def _save(self, folder: RunFolder, log: Logbook) -> bool:
        """Write a checkpoint; whether it could be written."""
        state = {
            "engine": self.engine.state_dict(),
            "means": self.means.joined().state_dict(),
            "recent": self.recent.joined().state_dict(),
            "epochs": self.epochs,
            "best": self.best,
            "pictures": self.fingerprint,
            "start": self.start,
        }
        if not primary():
            return True
        checkpoints = folder.checkpoints(self.recipe.run.keep)
        try:
            checkpoints.write(self.engine.step, state)
        except OSError as error:  # the run is worth more than one checkpoint
            newest = next(iter(checkpoints.paths()), "none")
            log.say(
                f"the checkpoint at step {self.engine.step} could not be written: {error.strerror or error}; "
                f"the newest is {newest}"
            )
            return False
        return True

    def _info(self) -> ModelInfo:
        signature = make_signature(self.network.num_classes, 3, self.size)
        return ModelInfo(self.samples.class_to_idx, signature, self.stats, None)


def _check_goes_with(objective: Objective, recipe: Recipe) -> None:
    """Refuse options that mean nothing, or something else, with an objective."""
    name, run = recipe.objective.name, recipe.run
    if objective.compares and run.accumulate > 1:
        raise ConfigError(
            f"run.accumulate: {name} compares all pictures of a batch with each other, so that it cannot be cut; to "
            "save memory, take run.gradient_checkpointing, or a smaller batch_size"
        )
    if recipe.batch_size < objective.least * world_size():
        raise ConfigError(
            f"batch_size: {name} compares pictures, and needs {objective.least} or more in each of {world_size()} "
            f"processes, not {recipe.batch_size} in all"
        )
    views = recipe.objective.views
    if views.large + views.small > 1 and not varies(recipe.augment):
        raise ConfigError(
            f"augment: {name} compares views of a picture, and with these options all are the same; leave policy and "
            "min_scale out"
        )
    if objective.result is not objective.network and recipe.average.decay:
        raise ConfigError(f"average.decay: what {name} leaves is an average of the weights already; leave it out")
    if recipe.balance and not recipe.objective.labelled:
        raise ConfigError(f"balance: {name} knows no species; leave it out")
    if recipe.freeze == "network" and not recipe.objective.labelled:
        raise ConfigError(f"freeze: {name} has nothing to learn but the network; leave it out, or give some stages")
    if objective.compares and recipe.repeats > 1:
        raise ConfigError(
            f"repeats: {name} compares the pictures of a batch with each other, and would take the copies of one for "
            "different ones; leave it out"
        )

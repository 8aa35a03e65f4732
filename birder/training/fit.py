"""From a recipe to a run folder."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import birder
from birder.data.augment import training_transform
from birder.data.loader import Pictures, TrainingSet, training_batches
from birder.data.order import steps_per_epoch
from birder.data.samples import Samples, read_samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, DataError
from birder.evaluation.classification import evaluate
from birder.model_file import ModelInfo, save_model
from birder.networks import create_network, networks
from birder.objectives.base import Batch
from birder.objectives.classification import Classification
from birder.signature import make_signature, rgb_stats
from birder.training.engine import Engine
from birder.training.folder import RunFolder, open_folder
from birder.training.logbook import Logbook, Means
from birder.training.machine import resolve
from birder.training.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A finished run."""

    folder: Path
    """Where all files are."""
    model: Path
    """The best model."""
    top1: float | None
    """Its accuracy on the validation pictures, 0-1; None without these."""


def fit(recipe: Recipe, out: Path | None = None, *, console: "Console | None" = None) -> Fitted:
    """Train a network as a recipe says; a run that was stopped goes on after its last finished epoch.

    Args:
        recipe: Every choice of the run.
        out: Folder of the run; None is ``runs/NETWORK``, or the next free ``runs/NETWORK-2`` …
        console: Where progress is shown; None for nowhere.

    Raises:
        ConfigError: An option that does not fit, or a folder that holds another run.
        DataError: Pictures that cannot be used.
        NotFinite: The loss became no number.
    """
    recipe = resolve(recipe)
    networks[recipe.network.lower()]  # a wrong name is told before thousands of files are looked at
    samples = read_samples(Path(recipe.data))
    validation = read_samples(Path(recipe.val), samples.class_to_idx) if recipe.val else None
    torch.set_num_threads(recipe.run.threads)
    training = _Training(recipe, samples, validation)
    folder = open_folder(recipe, out)
    training.run(folder, Logbook(folder.metrics, console))
    return Fitted(folder=folder.path, model=folder.best, top1=training.best)


class _Training:
    """The parts of one run, put together."""

    def __init__(self, recipe: Recipe, samples: Samples, validation: Samples | None) -> None:
        self.recipe = recipe
        self.samples = samples
        self.validation = validation
        self.device = torch.device(recipe.run.device)
        self.length = steps_per_epoch(len(samples), recipe.batch_size)
        self.stats = rgb_stats(recipe.rgb)
        self.size = (recipe.size[0], recipe.size[1])
        self.best: float | None = None

        torch.manual_seed(recipe.run.seed)
        options: dict[str, Any] = dict(recipe.network_options)
        self.network = create_network(recipe.network, len(samples.class_to_idx), size=self.size, **options)
        self.network.to(self.device)
        self.engine = Engine(
            Classification(self.network, recipe.objective),
            recipe.optim,
            steps=self.length * recipe.epochs,
            warmup=round(self.length * (recipe.schedule.warmup_epochs or 0.0)),
            final_lr=recipe.schedule.final_lr,
            dtype=getattr(torch, recipe.run.dtype),
        )
        self.normalize = classification_transform(self.size, self.stats).normalize

    def run(self, folder: RunFolder, log: Logbook) -> None:
        """Train from where the folder's state stands to the end."""
        first = self._restore(folder)
        log.rewind(self.engine.step)
        self._introduce(first, folder, log)
        if first == self.recipe.epochs:
            return
        batches = self._batches()
        with log.progress(self.engine.steps, self.engine.step):
            for epoch in range(first, self.recipe.epochs):
                metrics = self._epoch(epoch, batches, log)
                metrics |= self._validate(epoch)
                self._keep(epoch, metrics, folder)
                log.write("epoch", self.engine.step, epoch=epoch + 1, **metrics)
                log.say(_summary(epoch + 1, self.recipe.epochs, metrics))
                # The state comes last: whatever it says is done has been written.
                state = {"epoch": epoch + 1, "best": self.best, "pictures": _fingerprint(self.samples)}
                folder.write_state(self.engine.state_dict() | state)

    def _restore(self, folder: RunFolder) -> int:
        state = folder.read_state()
        if state is None:
            return 0
        if state["pictures"] != _fingerprint(self.samples):
            raise ConfigError(
                f"the pictures of {self.recipe.data} are not those that the run in {folder.path} began with: "
                "name another folder for a new run"
            )
        self.engine.load_state_dict(state)
        self.best = state["best"]
        return int(state["epoch"])

    def _introduce(self, first: int, folder: RunFolder, log: Logbook) -> None:
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        run = self.recipe.run
        log.say(
            f"{self.network.name}: {parameters / 1e6:.1f} M parameters, {len(self.samples.class_to_idx)} species, "
            f"{len(self.samples):,} pictures at {self.size[0]} x {self.size[1]}, on {run.device} in {run.dtype}"
        )
        if first:
            done = "is finished: nothing to do" if first == self.recipe.epochs else f"goes on after epoch {first}"
            log.say(f"{folder.path} {done}")
            return
        log.write(
            "start",
            self.engine.step,
            birder=birder.__version__,
            torch=torch.__version__,
            parameters=parameters,
            species=len(self.samples.class_to_idx),
            pictures=len(self.samples),
            validation_pictures=len(self.validation) if self.validation else 0,
        )

    def _batches(self) -> Iterator[Pictures]:
        transform = training_transform(self.size, self.recipe.augment)
        return training_batches(
            TrainingSet(self.samples, transform, self.recipe.run.seed),
            batch_size=self.recipe.batch_size,
            start=self.engine.step,
            stop=self.engine.steps,
            workers=self.recipe.run.workers,
        )

    def _epoch(self, epoch: int, batches: Iterator[Pictures], log: Logbook) -> dict[str, float]:
        self.engine.objective.train()
        means, began, waited, pictures_seen = Means(), time.monotonic(), 0.0, 0
        lr = self.engine.lr
        while self.engine.step < (epoch + 1) * self.length:
            asked = time.monotonic()
            pictures = next(batches)
            waited += time.monotonic() - asked
            for path, reason in pictures.unreadable:
                log.write("unreadable", self.engine.step, path=path, reason=reason)
                log.say(f"left out {path}: {reason}")
            if len(pictures.labels) == 0:
                self.engine.step += 1  # so that the next step is still what it would have been
                continue
            means.add(self.engine.train_step(self._on_device(pictures)))
            pictures_seen += len(pictures.labels)
            speed = pictures_seen / (time.monotonic() - began)
            log.show(self.engine.step, f"{epoch + 1}/{self.recipe.epochs}", means, speed)
        if not pictures_seen:
            raise DataError(f"not one picture of {self.recipe.data} can be read; {log.path} says why")
        seconds = time.monotonic() - began
        return {
            **means.result(),
            "lr": lr,
            "images_per_s": pictures_seen / seconds,
            "data_wait": waited / seconds,
            "seconds": seconds,
        }

    def _on_device(self, pictures: Pictures) -> Batch:
        # Bytes travel to the device, a quarter of the floats that are made of them there.
        images = self.normalize(pictures.images.to(self.device, non_blocking=True))
        return Batch(images=images, labels=pictures.labels.to(self.device))

    def _validate(self, epoch: int) -> dict[str, float]:
        due = (epoch + 1) % self.recipe.run.validate_every == 0 or epoch + 1 == self.recipe.epochs
        if self.validation is None or not due:
            return {}
        result = evaluate(self.network, self._info(), self.validation, batch_size=64, workers=self.recipe.run.workers)
        return {"val_top1": result.top1, "val_top3": result.top3, "val_macro_f1": result.macro_f1}

    def _keep(self, epoch: int, metrics: dict[str, float], folder: RunFolder) -> None:
        info = self._info()
        save_model(folder.last, self.network, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)
        top1 = metrics.get("val_top1")
        if top1 is not None and (self.best is None or top1 > self.best):
            self.best = top1
        elif self.validation is not None:
            return
        save_model(folder.best, self.network, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)

    def _info(self) -> ModelInfo:
        signature = make_signature(self.network.num_classes, 3, self.size)
        return ModelInfo(self.samples.class_to_idx, signature, self.stats, None)


def _fingerprint(samples: Samples) -> str:
    """Two data sets with the same fingerprint have the same files and labels in the same order."""
    rows = [sorted(samples.class_to_idx.items()), list(zip(map(os.fspath, samples.paths), samples.labels, strict=True))]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _summary(epoch: int, epochs: int, metrics: dict[str, float]) -> str:
    parts = [f"epoch {epoch}/{epochs}", f"loss {metrics['loss']:.3f}", f"accuracy {metrics['accuracy']:.1%}"]
    if "val_top1" in metrics:
        parts.append(f"validation {metrics['val_top1']:.1%}")
    parts += [f"{metrics['images_per_s']:.0f} images/s", f"waiting for data {metrics['data_wait']:.0%}"]
    return " · ".join(parts)

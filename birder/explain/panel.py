"""A photograph, and beside it what speaks for each of the answers to it. Shapes: K classes of the model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from birder.data.images import read_image
from birder.data.sheet import Row as Pictures
from birder.data.sheet import sheet_of_rows
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, ImageError, NotFinite, UnknownName, suggestion
from birder.explain.explanation import Method, explain
from birder.explain.overlays import overlay
from birder.inference.classes import check_classifier, class_names
from birder.inference.classification import infer_batch
from birder.inference.rows import NOT_FINITE, Row
from birder.model_file import ModelInfo
from birder.networks.base import Network

TILE = 320
"""Longer side of each picture in a panel, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be explained, and how."""

    top: int = 3
    """So many answers, the most probable first."""
    label: str | None = None
    """One class by name, in place of these."""
    method: Method = "auto"
    """See ``explain``."""
    stage: str | None = None
    """See ``explain``."""


class Panels:
    """A model made ready to explain its answers to files."""

    def __init__(self, network: Network, info: ModelInfo, question: Question) -> None:
        """The model, as ``load_model`` gives it, and what to explain.

        Raises:
            ModelFileError: The model has no classifier.
            ConfigError: It does not take RGB, or no answers are asked for.
            UnknownName: It has no class of that name; near misses are suggested.
        """
        check_classifier(network)
        if network.input_channels != 3:
            raise ConfigError(f"pictures have 3 channels, {network.name} takes {network.input_channels}")
        if question.top < 1:
            raise ConfigError(f"top must be 1 or more, not {question.top}")
        self.names = class_names(network, info.class_to_idx)
        if question.label is not None and question.label not in self.names:
            near = suggestion(question.label, self.names)
            raise UnknownName(f"the model has no class {question.label!r}{near}")
        self._network, self._question = network, question
        self._transform = classification_transform(network.size, info.rgb_stats)
        self._temperature = info.calibration.temperature if info.calibration else 1.0

    def __call__(self, path: str | Path) -> tuple[Row, Image.Image | None]:
        """The answers to a file and the panel that explains them, RGB; or why it could not be read, and none.

        Raises:
            ConfigError: The network does not have this method or stage.
        """
        name = os.fspath(path)
        try:
            photograph = read_image(path)
            image = self._transform(photograph)
            logits, _ = infer_batch(self._network, image[None], return_logits=True)
            labels, scores = self._answers(torch.from_numpy(logits[0]))
            question = self._question
            heats = [
                explain(self._network, image, label=label, method=question.method, stage=question.stage).heat
                for label in labels
            ]
        except ImageError as error:
            return Row(path=name, status="error", reason=error.reason), None
        except NotFinite:
            return Row(path=name, status="error", reason=NOT_FINITE), None
        row = Row(path=name, labels=tuple(self.names[label] for label in labels), scores=tuple(scores))
        small = _fitted(photograph)
        return row, _panel(row, small, [overlay(small, heat) for heat in heats])

    def _answers(self, logits: torch.Tensor) -> tuple[list[int], list[float]]:
        """Labels that are to be explained, and their probabilities, of logits (K,)."""
        probabilities = (logits.double() / self._temperature).softmax(dim=0)
        if not probabilities.isfinite().all():
            raise NotFinite(NOT_FINITE)
        if self._question.label is not None:
            labels = [self.names.index(self._question.label)]
        else:
            labels = probabilities.argsort(descending=True, stable=True)[: self._question.top].tolist()
        return labels, probabilities[labels].tolist()


def _fitted(photograph: Image.Image) -> Image.Image:
    """As large as a tile allows, with its proportions."""
    scale = TILE / max(photograph.size)
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    return photograph.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _panel(row: Row, photograph: Image.Image, overlays: Sequence[Image.Image]) -> Image.Image:
    answers = [f"{name} {score:.1%}" for name, score in zip(row.labels, row.scores, strict=True)]
    pictures = Pictures(title=row.path, pictures=[photograph, *overlays], captions=["photograph", *answers])
    return sheet_of_rows([pictures], tile=TILE)

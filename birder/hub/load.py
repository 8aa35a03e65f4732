"""Published models as networks, by name: what the model cards call."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from birder.data.transforms import classification_transform
from birder.errors import ConfigError
from birder.hub.fetch import locate
from birder.model_file import ModelInfo, load_model
from birder.networks import Network
from birder.signature import get_size_from_signature


def load_pretrained_model(
    weights: str | Path,
    *,
    dst: str | Path | None = None,
    file_format: str | None = None,
    inference: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    new_size: tuple[int, int] | None = None,
    custom_config: Mapping[str, Any] | None = None,
    progress_bar: bool = True,
) -> tuple[Network, ModelInfo]:
    """Load a published model, from this computer or, the first time, from the network.

    Args:
        weights: A name that ``list_pretrained_models`` has, or the path of a model file.
        dst: The file to read, and to download to when it is not there; None is the cache.
        file_format: Form of the file, ``pt`` or ``safetensors``; None is ``pt`` where the model is published so.
        inference: Evaluation mode and no gradients; otherwise training mode with gradients.
        device: Where the network goes; None is the CPU.
        dtype: Type of its weights; None leaves that of the file.
        new_size: (height, width) to go on with, when not the one that the model was made for.
        custom_config: Options that replace those of the file and the registered ones.
        progress_bar: Show a bar while downloading, on a terminal.

    Raises:
        UnknownName: No such name, or a model that this version of birder cannot load.
        ConfigError: The model is not published in that form, or an option does not exist.
        DownloadError: The file could not be downloaded.
        ModelFileError: There is no such file, or it is damaged, or another than the published one.
        WeightsMismatch: The weights are not those of the network.
    """
    path, network = locate(weights, dst=dst, file_format=file_format, progress_bar=progress_bar)
    net, info = load_model(
        path, network=network, config=custom_config, size=new_size, inference=inference, device=device
    )
    if dtype is not None:
        net.to(dtype)
    return net, info


def load_pretrained_model_and_transform(
    weights: str | Path,
    *,
    dst: str | Path | None = None,
    file_format: str | None = None,
    inference: bool = True,
    naflex: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    custom_config: Mapping[str, Any] | None = None,
    progress_bar: bool = True,
    classification_kwargs: Mapping[str, Any] | None = None,
    detection_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Network, ModelInfo, Callable[[Image.Image], Tensor]]:
    """Load a published model and what turns a picture into its input; see ``load_pretrained_model``.

    Args:
        weights: A name that ``list_pretrained_models`` has, or the path of a model file.
        dst: The file to read, and to download to when it is not there; None is the cache.
        file_format: Form of the file, ``pt`` or ``safetensors``; None is ``pt`` where the model is published so.
        inference: Evaluation mode and no gradients; otherwise training mode with gradients.
        naflex: Pictures in their own proportions; not supported yet.
        device: Where the network goes; None is the CPU.
        dtype: Type of its weights; None leaves that of the file.
        custom_config: Options that replace those of the file and the registered ones.
        progress_bar: Show a bar while downloading, on a terminal.
        classification_kwargs: Options of ``classification_transform``.
        detection_kwargs: Options of the transform of a detector; not supported yet.

    Raises:
        ConfigError: ``naflex`` or ``detection_kwargs``; and the errors of ``load_pretrained_model``.
    """
    if naflex:
        raise ConfigError("naflex: pictures in their own proportions are not supported yet")
    if detection_kwargs is not None:
        raise ConfigError("detection_kwargs: models for object_detection are not supported yet")
    net, info = load_pretrained_model(
        weights,
        dst=dst,
        file_format=file_format,
        inference=inference,
        device=device,
        dtype=dtype,
        custom_config=custom_config,
        progress_bar=progress_bar,
    )
    size = get_size_from_signature(info.signature)
    return net, info, classification_transform(size, info.rgb_stats, **(classification_kwargs or {}))

"""Probabilities and embeddings as arrays: of one picture, of a batch, of all batches of a loader.

Everything runs in evaluation mode and without gradients, whatever state the network is in, and leaves it in that state.

Shapes: B images in a batch, N in all, K classes, D size of the embedding.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from birder.data.images import Picture, read_image
from birder.errors import ImageError
from birder.networks.base import Network

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Chunk: TypeAlias = tuple[list[str], Floats, Labels, list[Floats]]
"""Paths, probabilities (N, K), labels (N,), and the embeddings of each batch, (B, D)."""

_CROP = 0.8  # part of height and width that each of the five crops shows


def infer_image(
    net: Network,
    sample: Picture | Tensor,
    transform: Callable[[Image.Image], Tensor],
    return_embedding: bool = False,
    tta: bool = False,
    return_logits: bool = False,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> tuple[Floats, Floats | None]:
    """Classify one picture.

    Args:
        net: A network with a classifier.
        sample: A path, the bytes of a file, a Pillow image, an array (see ``read_image``), or a tensor (C, H, W) that
            has been through a transform already.
        transform: Makes an upright RGB picture what the network takes; see ``classification_transform``.
        return_embedding: Also return the embedding.
        tta: Average over five crops, see ``infer_batch``.
        return_logits: Logits in place of probabilities.
        device: Where to compute, and where the network is moved; None is where it is.
        kwargs: Passed to the network.

    Returns:
        Probabilities (1, K), and the embedding (1, D) or None; float32.

    Raises:
        ImageError: The picture cannot be read; the message begins with its path if it has one.
    """
    if device is not None:
        net.to(device)
    inputs = _tensor(sample, transform).unsqueeze(0)
    return infer_batch(net, inputs, return_embedding, tta, return_logits, **kwargs)


def infer_batch(
    net: Network,
    inputs: Tensor,
    return_embedding: bool = False,
    tta: bool = False,
    return_logits: bool = False,
    **kwargs: Any,
) -> tuple[Floats, Floats | None]:
    """Classify a batch, (B, C, H, W), which is moved to the network's device and type.

    Args:
        net: A network with a classifier.
        inputs: Pictures that have been through the transform.
        return_embedding: Also return the embeddings.
        tta: Average over five crops, the corners and the middle, each of 0.8 of height and width and enlarged to the
            size of the picture again: their probabilities (or logits), and their embeddings.
        return_logits: Logits in place of probabilities.
        kwargs: Passed to the network.

    Returns:
        Probabilities (B, K), and the embeddings (B, D) or None; float32.
    """
    device, dtype = _place(net)
    with torch.inference_mode(), evaluation_mode(net):
        inputs = inputs.to(device, non_blocking=True)
        views = five_crops(inputs) if tta else [inputs]
        pairs = [_forward(net, view.to(dtype), return_embedding, return_logits, kwargs) for view in views]
        out = torch.stack([out for out, _ in pairs]).mean(dim=0)
        embeddings = [embedding for _, embedding in pairs if embedding is not None]
        return _array(out), _array(torch.stack(embeddings).mean(dim=0)) if embeddings else None


def infer_dataloader(
    device: torch.device | str,
    net: Network,
    dataloader: Iterable[tuple[Any, Tensor, Any]],
    return_embedding: bool = False,
    tta: bool = False,
    return_logits: bool = False,
    channels_last: bool = False,
    model_dtype: torch.dtype = torch.float32,
    amp: bool = False,
    amp_dtype: torch.dtype | None = None,
    num_samples: int | None = None,
    batch_callback: Callable[[list[str], Floats, Labels], None] | None = None,
    chunk_size: int | None = None,
    **kwargs: Any,
) -> Chunk | Iterator[Chunk]:
    """Classify all that a loader yields.

    Args:
        device: Where the network is moved and computes.
        net: A network with a classifier.
        dataloader: Yields (paths, pictures (B, C, H, W), labels (B,)).
        return_embedding: Also return the embeddings.
        tta: Average over five crops, see ``infer_batch``.
        return_logits: Logits in place of probabilities.
        channels_last: Lay pictures and weights out with the channels last, which some devices prefer.
        model_dtype: Type that the network is converted to.
        amp: Compute what allows it in ``amp_dtype``.
        amp_dtype: None is the type that torch chooses for the device.
        num_samples: Accepted for older code; not needed.
        batch_callback: Called after every batch with paths, probabilities and labels.
        chunk_size: None returns everything at once; a number makes this an iterator of chunks, each of as many batches
            as it takes to reach that number of pictures.
        kwargs: Passed to the network.

    Returns:
        (paths, probabilities (N, K), labels (N,), embeddings of each batch), empty for an empty loader; or, with
        ``chunk_size``, an iterator of these.
    """
    chunks = infer_dataloader_iter(
        device,
        net,
        dataloader,
        return_embedding,
        tta,
        return_logits,
        channels_last,
        model_dtype,
        amp,
        amp_dtype,
        num_samples,
        batch_callback,
        chunk_size,
        **kwargs,
    )
    return next(chunks) if chunk_size is None else chunks


def infer_dataloader_iter(
    device: torch.device | str,
    net: Network,
    dataloader: Iterable[tuple[Any, Tensor, Any]],
    return_embedding: bool = False,
    tta: bool = False,
    return_logits: bool = False,
    channels_last: bool = False,
    model_dtype: torch.dtype = torch.float32,
    amp: bool = False,
    amp_dtype: torch.dtype | None = None,
    num_samples: int | None = None,
    batch_callback: Callable[[list[str], Floats, Labels], None] | None = None,
    chunk_size: int | None = None,
    **kwargs: Any,
) -> Iterator[Chunk]:
    """``infer_dataloader``, always as an iterator; without ``chunk_size`` it yields one chunk, which may be empty."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    net.to(device=device, dtype=model_dtype, memory_format=layout)  # type: ignore[call-overload]
    paths: list[str] = []
    outs: list[Floats] = []
    all_labels: list[Labels] = []
    embeddings: list[Floats] = []
    for names, inputs, targets in dataloader:
        inputs = inputs.to(memory_format=layout)
        with torch.autocast(torch.device(device).type, amp_dtype, enabled=amp):
            out, embedding = infer_batch(net, inputs, return_embedding, tta, return_logits, **kwargs)
        labels = np.asarray(targets, dtype=np.int64)
        names = [str(name) for name in names]
        if batch_callback is not None:
            batch_callback(names, out, labels)
        paths += names
        outs.append(out)
        all_labels.append(labels)
        embeddings += [embedding] if embedding is not None else []
        if chunk_size is not None and len(paths) >= chunk_size:
            yield _chunk(net, paths, outs, all_labels, embeddings)
            paths, outs, all_labels, embeddings = [], [], [], []
    if paths or chunk_size is None:
        yield _chunk(net, paths, outs, all_labels, embeddings)


def five_crops(images: Tensor) -> list[Tensor]:
    """Corners and middle, enlarged to the whole again: (B, C, H, W) -> five of (B, C, H, W)."""
    height, width = images.shape[-2:]
    crop_height, crop_width = max(1, int(_CROP * height)), max(1, int(_CROP * width))
    bottom, right = height - crop_height, width - crop_width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    return [
        F.interpolate(
            images[..., top : top + crop_height, left : left + crop_width],
            size=(height, width),
            mode="bicubic",
            antialias=True,
        )
        for top, left in corners
    ]


@contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module then gets back the mode it had."""
    training = [module for module in net.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _tensor(sample: Picture | Tensor, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    if isinstance(sample, Tensor):
        if sample.ndim != 3 or not sample.is_floating_point():
            raise ImageError(
                f"a tensor must be (C, H, W) floats, not {tuple(sample.shape)} {sample.dtype}", code="not_an_image"
            )
        return sample
    try:
        return transform(read_image(sample))
    except ImageError as error:
        if isinstance(sample, bytes | bytearray | memoryview | Image.Image | np.ndarray):
            raise
        raise ImageError(f"{sample}: {error}", code=error.code) from error


def _place(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    parameter = next((parameter for parameter in net.parameters() if parameter.is_floating_point()), None)
    return (torch.device("cpu"), torch.float32) if parameter is None else (parameter.device, parameter.dtype)


def _forward(
    net: Network, inputs: Tensor, return_embedding: bool, return_logits: bool, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    embedding = None
    if return_embedding:
        embedding = net.embedding(inputs, **kwargs)
        logits = net.classify(embedding)
    else:
        logits = net(inputs, **kwargs)
    logits = logits.float()
    return logits if return_logits else logits.softmax(dim=1), None if embedding is None else embedding.float()


def _array(tensor: Tensor) -> Floats:
    return cast(Floats, tensor.cpu().numpy())


def _chunk(net: Network, paths: list[str], outs: list[Floats], labels: list[Labels], embeddings: list[Floats]) -> Chunk:
    if not paths:
        return [], np.zeros((0, net.num_classes or net.embedding_size), np.float32), np.zeros(0, np.int64), []
    return paths, np.concatenate(outs), np.concatenate(labels), embeddings

"""A network as a graph of OpenVINO, in a file."""

import contextlib
import logging
import secrets
import shutil
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from birder.data.fitting import Pixels, normalized
from birder.errors import ConfigError, need
from birder.inference.backends.base import check, converting
from birder.inference.backends.whole import shape_of, whole
from birder.networks.base import Network
from birder.signature import RGBStats

_one_at_a_time = threading.Lock()
"""Converting sets what belongs to the whole process, such as filters of warnings."""


def write_graph(
    ov: ModuleType, network: Network, stats: RGBStats, kept: Path, *, quantised: bool, pictures: Pixels | None
) -> None:
    """Convert a network for one picture, and write it to a folder, whole or not at all.

    Args:
        ov: OpenVINO.
        network: In float32.
        stats: Colour statistics by which pictures are normalised.
        kept: The folder, which is made.
        quantised: Weights and activations in int8 where that is safe.
        pictures: Pixels (N, H, W, C), whose ranges are those of int8.

    Raises:
        ConfigError: The network cannot be converted, or int8 has no pictures to learn from.
        MissingPackage: What quantises is not installed.
        OSError: The folder cannot be written.
    """
    with converting("OpenVINO"), _one_at_a_time, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the insides of the packages
        example = torch.zeros(shape_of(network, 1))
        graph = ov.convert_model(torch.export.export(whole(network, device=example.device), (example,)))
        graph.reshape(list(example.shape))
        _norm_tokens(ov, graph)
        if quantised:
            graph = _quantised(graph, stats, pictures)
    _keep(ov, graph, kept)


def _norm_tokens(ov: ModuleType, graph: Any) -> None:
    """Have norms over the channels of maps (B, H, W, C) computed as over those of tokens (B, H W, C).

    OpenVINO has a kernel only for these. The others it takes to pieces, and moves the map in memory for each of them.
    """
    ops = ov.opset13
    for norm in graph.get_ops():
        shape = list(norm.get_output_shape(0))
        if norm.get_type_name() != "MVN" or len(shape) != 4:
            continue
        axes = norm.input_value(1).get_node().get_data()
        if [axis % 4 for axis in np.ravel(axes)] != [3]:
            continue
        tokens = ops.reshape(norm.input_value(0), [shape[0], -1, shape[3]], special_zero=False)
        asked = norm.get_attributes()
        normed = ops.mvn(tokens, [2], asked["normalize_variance"], asked["eps"], asked["eps_mode"])
        result = ops.reshape(normed, shape, special_zero=False)
        for user in norm.output(0).get_target_inputs():
            user.replace_source_output(result.output(0))


def _quantised(graph: Any, stats: RGBStats, pictures: Pixels | None) -> Any:
    nncf = need("nncf", extra="int8", purpose="int8")
    if pictures is None or not len(pictures):
        raise ConfigError("int8 learns its ranges from pictures: give some")
    check(pictures, (len(pictures), *graph.inputs[0].shape[1:]))
    images = normalized(pictures, stats)
    attends = any(node.get_type_name() in ("ScaledDotProductAttention", "Softmax") for node in graph.get_ops())
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # its progress is not what was asked for
        return nncf.quantize(
            graph,
            nncf.Dataset(np.split(images, len(images))),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
        )


def _keep(ov: ModuleType, graph: Any, kept: Path) -> None:
    """Write the graph, whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir()
        ov.save_model(graph, temporary / "graph.xml", compress_to_fp16=False)
        temporary.rename(kept)
    except OSError:
        if not kept.is_dir():  # another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

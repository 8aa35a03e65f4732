"""The ways to compute that there are, which of them this machine has, and how one is made.

What computes with torch is imported when it is made.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from birder.data.fitting import Pixels
from birder.device import computes_bfloat16
from birder.errors import ConfigError, UnknownName, suggestion
from birder.inference.backends.base import Backend
from birder.inference.backends.openvino import openvino
from birder.signature import RGBStats

if TYPE_CHECKING:
    from birder.networks.base import Network

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute."""

    name: str
    """Of the backend: one of ``names()``."""
    precision: Precision
    """What its numbers are."""

    def __str__(self) -> str:
        """Such as ``openvino bf16``."""
        return f"{self.name} {self.precision}"


WAYS = (
    Way("cuda", "bf16"),
    Way("openvino", "int8"),
    Way("openvino", "bf16"),
    Way("compiled", "bf16"),
    Way("torch", "bf16"),
    Way("openvino", "fp32"),
    Way("compiled", "fp32"),
    Way("cuda", "fp32"),
    Way("onnx", "fp32"),
    Way("torch", "fp32"),
)
"""All there are; as a rule a faster one stands before a slower one."""
NEEDS = {
    ("openvino", "fp32"): ("fast", "openvino"),
    ("openvino", "bf16"): ("fast", "openvino"),
    ("openvino", "int8"): ("int8", "openvino", "nncf"),
    ("onnx", "fp32"): ("onnx", "onnx", "onnxscript", "onnxruntime"),
}
"""(name, precision) to the extra that brings what is needed, and the packages."""


def names() -> tuple[str, ...]:
    """The backends: ``cuda``, ``openvino``, ``compiled``, ``torch``, ``onnx``."""
    return tuple(dict.fromkeys(way.name for way in WAYS))


def available(device: str) -> dict[Way, str]:
    """All of ``WAYS`` in their order, and why a way is not possible on the device; empty if it is.

    Quick: nothing is built, and no package is imported.
    """
    return {way: _hindrance(way, device) for way in WAYS}


def create(
    way: Way,
    load: "Callable[[], Network]",
    stats: RGBStats,
    *,
    batch_size: int,
    device: str = "cpu",
    threads: int = 0,
    folder: Path | None = None,
    pictures: Pixels | None = None,
) -> Backend:
    """Make a network ready.

    Args:
        way: How to compute.
        load: Gives the network, which stays as it is; torch in fp32 uses the memory of its weights, which must not
            change meanwhile. It is not called if ``folder`` has the network converted.
        stats: Colour statistics by which pictures are normalised, one number for each channel.
        batch_size: The largest batch it will take, 1 or more.
        device: Where to compute.
        threads: Cores to use; 0 is all that this process may use.
        folder: Where OpenVINO keeps converted networks; it must belong to this very network, its weights, its size, and
            for int8 its pictures. Networks are not kept without it.
        pictures: Pixels (N, H, W, C), from which int8 learns its ranges; three hundred are enough.

    Raises:
        ConfigError: This machine cannot do it, or the backend cannot take this network.
        MissingPackage: A package of the backend is not installed.
        UnknownName: There is no such backend.
    """
    if way.name not in names():
        raise UnknownName(f"there is no backend {way.name!r}: {', '.join(names())}{suggestion(way.name, names())}")
    if batch_size < 1 or threads < 0:
        raise ConfigError(f"batch_size must be 1 or more, and threads 0 or more: {batch_size}, {threads}")
    if way not in WAYS or (hindrance := _unable(way, device)):
        reason = hindrance if way in WAYS else f"{way.name} does not compute in {way.precision}"
        possible = ", ".join(str(way) for way, hindrance in available(device).items() if not hindrance)
        raise ConfigError(f"{way}: {reason}; this machine has {possible}")
    if way.name == "openvino":
        return openvino(
            load,
            stats,
            batch_size=batch_size,
            precision=way.precision,
            threads=threads,
            folder=folder,
            pictures=pictures,
        )
    return _with_torch(way, load(), stats, batch_size=batch_size, device=device, threads=threads)


def _with_torch(
    way: Way, network: "Network", stats: RGBStats, *, batch_size: int, device: str, threads: int
) -> Backend:
    import torch

    from birder.inference.backends.compiled import compiled
    from birder.inference.backends.cuda import cuda
    from birder.inference.backends.eager import eager
    from birder.inference.backends.onnx import onnx

    place = torch.device(device)
    if way.name == "onnx":
        return onnx(network, stats, batch_size=batch_size, threads=threads)
    if way.name == "cuda":
        return cuda(network, stats, batch_size=batch_size, precision=way.precision, device=place)
    make = compiled if way.name == "compiled" else eager
    return make(network, stats, batch_size=batch_size, precision=way.precision, device=place, threads=threads)


def _hindrance(way: Way, device: str) -> str:
    extra, *packages = NEEDS.get((way.name, way.precision), ("",))
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return _unable(way, device) or (f"{missing[0]} is not installed: pip install 'birder[{extra}]'" if missing else "")


def _unable(way: Way, device: str) -> str:
    """Why the device cannot do it, whatever is installed."""
    if way.name == "cuda" and not device.startswith("cuda"):
        return "it needs an NVIDIA GPU"
    if way.name in ("openvino", "onnx") and device != "cpu":
        return f"it computes on the processor, not on {device}"
    if way.precision == "bf16" and not computes_bfloat16(device):
        return f"{device} does not multiply in bfloat16"
    return ""

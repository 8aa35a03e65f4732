"""How the conformance checker, ``shared/golden/check.py`` beside the repository, calls this package.

The checker joins this class with its own base class, which speaks the interface of ``birder.networks.base.Network``;
here is what it has no default for. What is neither there nor here is not covered, and is listed as skipped.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance import NotCovered  # of the checker
from torch import Tensor

from birder.errors import UnknownName
from birder.model_file import TASK, ModelInfo, load_model, load_model_with_cfg, load_weights
from birder.networks import Network, list_networks
from birder.signature import RGBStats, rgb_stats


class Adapter:
    """See ``shared/golden/ADAPTER.md`` for what each method gives."""

    def list_networks(self) -> list[str]:
        return list_networks()

    def rgb_stats(self, mode: str) -> RGBStats:
        return rgb_stats(mode)

    def load_model(
        self, path: Path, network: str, config: Mapping[str, Any] | None = None
    ) -> tuple[Network, ModelInfo]:
        with known_networks_only():
            return load_model(path, network=network, config=config)

    def load_model_with_cfg(self, cfg: Path, path: Path) -> Network:
        task = json.loads(cfg.read_text(encoding="utf-8"))["task"]
        if task != TASK:
            raise NotCovered(f"task {task}")
        with known_networks_only():
            return load_model_with_cfg(cfg, path)[0]

    def load_state(self, net: Network, state: Mapping[str, Tensor]) -> None:
        load_weights(net, state)


@contextmanager
def known_networks_only() -> Iterator[None]:
    """A file of a network that this package does not have is not covered."""
    try:
        yield
    except UnknownName as error:
        raise NotCovered(str(error)) from error

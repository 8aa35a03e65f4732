"""How the checker runs each objective: a driver of the checker -> (module, names, loss, outputs); see ADAPTER.md."""

from collections.abc import Callable
from typing import Any

from drivers.latent import data2vec, i_jepa
from drivers.masked import mim
from drivers.sorting import dino_v1, ibot
from drivers.views import mmcr, mmcr_loss, two_views

DRIVERS: dict[str, Callable[..., Any]] = {
    "data2vec": data2vec,
    "dino_v1": dino_v1,
    "i_jepa": i_jepa,
    "ibot": ibot,
    "mim": mim,
    "mmcr": mmcr,
    "mmcr_loss": mmcr_loss,
    "two_views": two_views,
}

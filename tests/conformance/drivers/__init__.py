"""How the checker runs each objective: a driver of the checker -> (module, names, loss, outputs); see ADAPTER.md."""

from collections.abc import Callable
from typing import Any

DRIVERS: dict[str, Callable[..., Any]] = {}

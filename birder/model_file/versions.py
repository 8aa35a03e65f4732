"""What the version that wrote a file says about its numbers."""

import re
from collections.abc import Mapping
from typing import Any

from birder.errors import ModelFileError
from birder.networks import Network
from birder.networks.base import Older

# Numbers, then what may follow them: a pre-release, a development version, a build.
_VERSION = re.compile(r"v?(\d+(?:\.\d+){0,3})(?:[-._]?(?:a|b|rc|alpha|beta|dev|post)[-._]?\d*)*(?:\+[\w.]+)?", re.ASCII)


def version_number(version: str | None) -> tuple[int, ...]:
    """``v0.3.1`` to (0, 3, 1); a pre-release counts as the version it leads to, and no version as the oldest.

    Raises:
        ModelFileError: The text is no version.
    """
    if version is None:
        return ()
    found = _VERSION.fullmatch(version)
    if not found:
        raise ModelFileError(
            f"birder_version is {version[:80]!r}, which is no version such as v0.4.1; correct the entry"
        )
    return tuple(int(number) for number in found[1].split("."))


def adaptation(network: type[Network], version: str | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Options that make a network give the numbers which the writer of a file got, and the reason; often none.

    Args:
        network: The class of the network.
        version: Version that wrote the file; None is the oldest.
        options: Options that are set already; these stay as they are.

    Raises:
        ModelFileError: The text is no version.
    """
    number = version_number(version)
    older = next((row for row in network.older if number < row.before), Older(before=(), options={}, reason=""))
    missing = {name: value for name, value in older.options.items() if name not in options}
    return missing, older.reason if missing else ""

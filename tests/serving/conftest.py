"""What the tests of the server share."""

from collections.abc import Iterator

import pytest

from tests.serving.live import Live


@pytest.fixture(scope="session")
def server() -> Iterator[Live]:
    """A server of the model that comes with birder, for tests that leave it as it was; its address is ``address``."""
    with Live("starter") as live:
        yield live

"""What objectives ask of networks."""

from typing import Protocol, runtime_checkable

import pytest

from birder.errors import ConfigError
from birder.networks import networks
from birder.networks.convnext_v2 import ConvNeXtV2
from birder.objectives.base import check_ability
from birder.testing import small_network


@runtime_checkable
class Sings(Protocol):
    def sing(self, song: str) -> None: ...


def check(network):
    check_ability(network, Sings, needed_by="choir", ability="sing", otherwise="hum")


def test_the_message_names_networks_that_can(monkeypatch):
    class Singer(ConvNeXtV2):
        def sing(self, song: str) -> None: ...

    with pytest.raises(ConfigError, match=r"^choir needs a network that can sing; convnext_v2_atto cannot\. "
                                          r"No registered network can: hum$"):  # fmt: skip
        check(small_network())
    for number in range(9):
        monkeypatch.setitem(networks._entries, f"singer_{number}", (Singer, None))
    with pytest.raises(ConfigError, match=r"These can: singer_0, singer_1, .*singer_7, …$"):
        check(small_network())
    network = small_network()
    network.__class__ = Singer
    check(network)

"""The architectures, one file each; importing this package registers them all."""

from birder.networks import convnext_v2
from birder.networks.base import Network, create_network, list_networks, networks

__all__ = ["Network", "convnext_v2", "create_network", "list_networks", "networks"]

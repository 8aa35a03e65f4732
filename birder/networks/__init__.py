"""The architectures, one file each; importing this package registers them all."""

from birder.networks import convnext_v2, pvt_v2, regnet, vit, vit_parallel
from birder.networks.base import Network, create_network, list_networks, networks

__all__ = [
    "Network",
    "convnext_v2",
    "create_network",
    "list_networks",
    "networks",
    "pvt_v2",
    "regnet",
    "vit",
    "vit_parallel",
]

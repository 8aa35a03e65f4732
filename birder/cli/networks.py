"""``birder networks``: what can be trained."""


def networks(pattern: str = "*") -> None:
    """List the networks that can be trained, with their size.

    Args:
        pattern: Names to list, with * for any letters.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from birder.errors import UnknownName, suggestion
    from birder.networks import create_network, list_networks

    names = list_networks(pattern)
    if not names:
        raise UnknownName(f"no network matches {pattern!r}{suggestion(pattern, list_networks())}")
    table = Table("network", "parameters (M)", "embedding", "default size")
    with torch.device("meta"):  # shapes without weights
        for name in names:
            network = create_network(name, 1000)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            size = "{} x {}".format(*network.size)
            table.add_row(name, f"{parameters / 1e6:.1f}", str(network.embedding_size), size)
    Console().print(table)

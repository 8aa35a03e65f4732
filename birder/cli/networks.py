"""``birder networks``: what can be trained."""

from typing import Literal


def networks(pattern: str = "*", *, format: Literal["table", "json"] = "table") -> None:
    """List the networks that can be trained, with their size.

    Args:
        pattern: Names to list, with * for any letters.
        format: A table, or JSON with exact numbers.
    """
    from fnmatch import fnmatchcase

    from birder.errors import UnknownName, suggestion
    from birder.gallery import as_json, gallery

    figures = {name: row for name, row in gallery().items() if fnmatchcase(name, pattern.lower())}
    if not figures:
        raise UnknownName(f"no network matches {pattern!r}{suggestion(pattern, gallery())}")
    if format == "json":
        print(as_json(figures), end="")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("network", no_wrap=True)
    for column in ("params (M)", "MACs (G)", "embedding", "size"):
        table.add_column(column, justify="right")
    for name, row in figures.items():
        numbers = (f"{row.parameters / 1e6:.1f}", f"{row.multiply_adds / 1e9:.1f}", str(row.embedding_size))
        table.add_row(name, *numbers, "{}x{}".format(*row.default_size))
    Console().print(table)

"""``birder runs``: what has been trained, and what goes on."""

from pathlib import Path
from typing import Literal


def runs(folder: Path = Path("runs"), *, format: Literal["table", "json"] = "table") -> None:
    """List training runs with their state and their best accuracy, newest last.

    Args:
        folder: Where to look, also in folders below.
        format: A table, or JSON.
    """
    import json

    from birder.errors import DataError
    from birder.training.runs import find_runs

    found = find_runs(folder)
    if not found:
        raise DataError(f"{folder} holds no runs; birder train begins one, and --out says where")
    if format == "json":
        rows = [
            {
                "folder": str(run.path),
                "network": run.recipe.network,
                "data": run.recipe.data,
                "epoch": run.epoch,
                "epochs": run.recipe.epochs,
                "state": run.state,
                "best_val_top1": run.best,
                "loss": run.loss,
                "written": run.written.isoformat(timespec="seconds"),
            }
            for run in found
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from birder.cli.progress import printable

    table = Table()
    table.add_column("run", overflow="fold")  # a path that is cut off is of no use
    for column in ("network", "epoch", "state", "best", "loss", "written"):
        table.add_column(column)
    for run in found:
        best = "" if run.best is None else f"{run.best:.1%}"
        loss = "" if run.loss is None else f"{run.loss:.3f}"
        epoch = f"{run.epoch}/{run.recipe.epochs}"
        written = run.written.strftime("%Y-%m-%d %H:%M")
        # As Text, in which brackets are no markup.
        table.add_row(Text(printable(run.path)), run.recipe.network, epoch, run.state, best, loss, written)
    Console().print(table)

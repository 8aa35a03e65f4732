"""The command tree. Commands import torch when they run, so that help is quick."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cyclopts import App, Parameter

import birder
from birder.cli.calibrate import calibrate
from birder.cli.data import app as data
from birder.cli.demo import demo
from birder.cli.evaluate import evaluate
from birder.cli.explain import explain
from birder.cli.models import app as models
from birder.cli.networks import networks
from birder.cli.options import whole_numbers
from birder.cli.predict import embed, predict
from birder.cli.pretrain import app as pretrain
from birder.cli.probe import probe
from birder.cli.recipes import recipes
from birder.cli.report import report
from birder.cli.results import app as results
from birder.cli.runs import runs
from birder.cli.serve import serve
from birder.cli.train import distill_app as distill
from birder.cli.train import train_app as train
from birder.errors import BirderError, Stopped

app = App(
    name="birder",
    help="Recognise wildlife, first of all birds, in photographs.",
    version=birder.__version__,
    help_format="markdown",
    config=whole_numbers,
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,  # main has something to say about it
)
for command in (
    predict,
    embed,
    results,
    evaluate,
    calibrate,
    explain,
    report,
    serve,
    probe,
    train,
    distill,
    pretrain,
    recipes,
    runs,
    data,
    models,
    networks,
    demo,
):
    app.command(command)
# Its options are those of a class that draws, and so needs numpy.
app.command("birder.cli.drawn:drawn", name="drawn", help="Draw pictures of invented birds, in one folder per species.")

GO_ON = 75
"""Exit code of a run that was stopped and is saved: what sysexits.h calls a temporary failure, to be tried again."""


def main() -> None:
    """Run the command line; our own errors and the system's become one message and exit code 2, Ctrl-C 130.

    A run that was stopped and can go on ends with 75.
    """
    try:
        try:
            with _log_shown():
                app()
        finally:
            sys.stdout.flush()  # here, and not when all is over and nobody can answer for a closed pipe
    except Stopped as stopped:
        # Of those that train together, which have all been stopped, the first speaks. Asked without torch: it may not
        # be there yet, and cannot be loaded again when Ctrl-C came while it was.
        if os.environ.get("RANK", "0") == "0":
            print(f"birder: {stopped}", file=sys.stderr)
        sys.exit(GO_ON)
    except BirderError as error:
        print(f"birder: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has seen enough, as in ``birder predict … | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that may not be written to
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"birder: {where}{error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("birder: stopped", file=sys.stderr)
        sys.exit(130)


@contextmanager
def _log_shown() -> Iterator[None]:
    """Let the library's log appear on stderr: what was adapted in an older file, what a start leaves out."""
    logger = logging.getLogger("birder")
    handler, level = logging.StreamHandler(), logger.level
    handler.setFormatter(logging.Formatter("birder: %(message)s"))
    handler.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)  # one of several speaks
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


if __name__ == "__main__":
    main()

"""The command tree. Commands import torch when they run, so that help is quick."""

import os
import sys

from cyclopts import App, Parameter

import birder
from birder.cli.demo import demo
from birder.cli.evaluate import evaluate
from birder.cli.networks import networks
from birder.cli.options import whole_numbers
from birder.cli.predict import predict
from birder.cli.train import app as train
from birder.errors import BirderError

app = App(
    name="birder",
    help="Recognise wildlife, first of all birds, in photographs.",
    version=birder.__version__,
    help_format="markdown",
    config=whole_numbers,
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,  # main has something to say about it
)
for command in (predict, evaluate, train, networks, demo):
    app.command(command)
# Its options are those of a class that draws, and so needs numpy.
app.command("birder.cli.drawn:drawn", name="drawn", help="Draw pictures of invented birds, in one folder per species.")


def main() -> None:
    """Run the command line; our own errors and the system's become one message and exit code 2, Ctrl-C 130."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, and not when all is over and nobody can answer for a closed pipe
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


if __name__ == "__main__":
    main()

"""The command tree. Commands import torch when they run, so that help is quick."""

import os
import sys

from cyclopts import App, Parameter

import birder
from birder.cli.demo import demo
from birder.cli.evaluate import evaluate
from birder.cli.networks import networks
from birder.cli.predict import predict
from birder.cli.train import app as train
from birder.errors import BirderError

app = App(
    name="birder",
    help="Recognise wildlife, first of all birds, in photographs.",
    version=birder.__version__,
    help_format="markdown",
    default_parameter=Parameter(negative_iterable=()),
)
for command in (predict, evaluate, train, networks, demo):
    app.command(command)
# Its options are those of a class that draws, and so needs numpy.
app.command("birder.cli.drawn:drawn", name="drawn", help="Draw pictures of invented birds, in one folder per species.")


def main() -> None:
    """Run the command line; our own errors become one message and exit code 2, Ctrl-C exit code 130."""
    # Processes that read pictures share the cores with the network's threads: these must not wait by spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except BirderError as error:
        print(f"birder: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has seen enough, as in ``birder predict … | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("birder: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

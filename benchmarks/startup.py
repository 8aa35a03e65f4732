"""How long a user waits before anything happens: importing, and the commands that need no torch.

python benchmarks/startup.py [--rounds 10]

Prints the median over fresh processes, and that of a bare interpreter beside it.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import birder": ["-c", "import birder"],
    "birder --help": ["-m", "birder", "--help"],
    "birder train --help": ["-m", "birder", "train", "--help"],
    "birder predict --help": ["-m", "birder", "predict", "--help"],
    "a typo in a recipe": ["-m", "birder", "train", "--data", "x", "--optim.lrr", "1"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        print(f"{statistics.median(values):6.3f} s  {name}")


if __name__ == "__main__":
    main()

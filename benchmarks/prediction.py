"""Bulk prediction from end to end: ``birder predict``, the older package and a plain loop around timm, on camera files.

[PEER_PYTHON=…/bin/python] python benchmarks/prediction.py --out FOLDER [--photographs FOLDER …] [--networks …]
    [--tools birder torch older older-fast timm timm-bf16] [--large 500] [--small 5000] [--rounds 3]
    [--older-fast="--amp …"]

Makes, once, JPEGs of 12 megapixels and small ones (from the given photographs, or from drawn birds) and a model file
with random weights for each network. Then each tool, a process of its own, classifies one picture, and all of a kind;
the tools take turns, and another one begins in each round. PEER_PYTHON is the interpreter of an environment with the
older package and timm, whose ``birder-predict`` lies beside it; without it only birder runs. For Linux.

The time for one picture, start and end of the process included, is the time to the first row. The *steady* speed is
that without it: (pictures - 1) / (time for all - time for one), which depends little on how many pictures there are, so
that --large 50 --small 200 tells nearly as much as the full numbers. Prints medians over the rounds, and how often two
tools name the same class. FOLDER/measured.jsonl collects every single run, FOLDER/runs what a tool wrote last.
"""

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from birder.data.drawn import DrawnBirds
from birder.networks import create_network

NETWORKS = {
    "convnext_v2_tiny": (256, "convnextv2_tiny"),
    "pvt_v2_b2": (384, "pvt_v2_b2"),
    "vit_l16": (256, "vit_large_patch16_224"),
    "regnet_y_8g": (384, "regnety_080"),
    "vit_parallel_s16_18x2_ls_avg": (384, "vit_small_patch16_18x2_224"),
}
"""The published networks, the sides of their pictures, and what timm calls them, or all but the same networks."""
OTHERS = (224, "")
CLASSES = 371
RGB_STATS = {"mean": (0.5191, 0.5306, 0.4877), "std": (0.2316, 0.2304, 0.2588)}
ORIGINALS = {"large": 25, "small": 200}
"""How many different pictures of each kind are made; what is asked for beyond are links to these."""
OLDER_FAST = "--model-dtype bfloat16 -j 2"
"""The fastest settings of the older package that were found."""
POLL = 0.5
"""Seconds between two looks at the memory."""
# What one would write by hand with timm. Arguments: network, side, classes, type of numbers, folder, output.
TIMM_LOOP = """
import csv, sys
from pathlib import Path
import timm, torch
from PIL import Image

name, side, classes, dtype, folder, out = sys.argv[1:]
fixed = {"img_size": int(side)} if "vit" in name else {}
model = timm.create_model(name, num_classes=int(classes), **fixed).eval()
transform = timm.data.create_transform((3, int(side), int(side)), crop_pct=1.0, crop_mode="squash")

class Pictures(torch.utils.data.Dataset):
    paths = sorted(Path(folder).iterdir())
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        return str(self.paths[index]), transform(Image.open(self.paths[index]).convert("RGB"))

loader = torch.utils.data.DataLoader(Pictures(), 32, num_workers=2)
with open(out, "w", newline="") as file, torch.inference_mode(), torch.autocast("cpu", enabled=dtype == "bfloat16"):
    csv.writer(file).writerow(("sample", "prediction", "probability"))
    for paths, images in loader:
        best = model(images).float().softmax(1).max(1)
        csv.writer(file).writerows(zip(paths, best.indices.tolist(), best.values.tolist()))
"""


class Failed(Exception):
    """A tool did not do its task; the message says why."""


@dataclass(frozen=True)
class Task:
    """What a tool is to do."""

    network: str
    model: Path
    """The model file, NETWORK_bench.pt."""
    pictures: Path
    out: Path
    """An empty folder for what the tool writes."""
    older_fast: list[str]


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    wall: float
    """Seconds from the start of the process to its end."""
    cpu: float
    """Seconds of all cores, for the process and all those it started and waited for."""
    memory: float
    """The most memory of the process and all below it, in GiB; what they share counts once."""


Costs = dict[tuple[str, int], list[Cost]]
"""(tool, number of pictures) -> what each round took; number 0 is the one picture before the rounds."""
Answers = dict[str, dict[str, str]]
"""Tool -> name of a file -> its best class."""


def main() -> None:
    options = parse()
    out = options.out.absolute()
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds")
    print(f"older-fast: {shlex.join(options.older_fast)}")
    for network in options.networks:
        model = make_model(network, out / "models")
        for kind, count in (("large", options.large), ("small", options.small)):
            if count:
                pictures = make_pictures(out, kind, (1, count), options.photographs)
                costs, answers = compare(model, network, pictures, options)
                lines = (*table(costs, count), "", *agreement(answers))
                print(f"\n{network}, {count} {kind} pictures\n", *lines, sep="\n", flush=True)


def parse() -> argparse.Namespace:
    tools = [tool for tool in TOOLS if tool in ("birder", "torch") or "PEER_PYTHON" in os.environ]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, nargs="+", default=[])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=tools)
    parser.add_argument("--large", type=int, default=500, help="pictures of 12 megapixels; 0 for none")
    parser.add_argument("--small", type=int, default=5000, help="small pictures; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--older-fast", type=shlex.split, default=OLDER_FAST, help="the settings behind older-fast")
    options = parser.parse_args()
    if 1 in (options.large, options.small):
        parser.error("one picture is always measured; --large and --small take 2 or more, or 0")
    return options


# What is classified, and with what.


def make_pictures(out: Path, kind: str, counts: Sequence[int], photographs: Sequence[Path]) -> dict[int, Path]:
    """A folder of each number of pictures: links to the different ones, which are made if they are not there."""
    originals = out / "originals" / kind
    if not originals.exists():
        unfinished = out / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for number, photograph in enumerate(itertools.islice(sources(photographs), ORIGINALS[kind])):
            picture = enlarged(photograph, number) if kind == "large" else small(photograph, number)
            (unfinished / f"{number:03}.jpg").write_bytes(picture)
        originals.parent.mkdir(exist_ok=True)
        unfinished.rename(originals)
    files = sorted(originals.iterdir())
    folders = {count: out / "pictures" / f"{kind}-{count}" for count in counts}
    for count, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(list(folder.iterdir())), count):
            os.link(files[number % len(files)], folder / f"{number:06}.jpg")
    return folders


def sources(photographs: Sequence[Path]) -> Iterator[Image.Image]:
    """Photographs in a fixed mixed order, again and again if there are few; without any, drawn birds."""
    birds = DrawnBirds(size=(480, 640))
    paths = [path for folder in photographs for path in sorted(folder.rglob("*")) if path.suffix.lower() == ".jpg"]
    random.Random(0).shuffle(paths)
    for number in range(10_000):
        if not photographs:
            yield birds.draw(number % birds.species, number).image
        elif paths:
            with contextlib.suppress(OSError):  # a damaged photograph
                yield Image.open(paths[number % len(paths)]).convert("RGB")
    raise SystemExit(f"there are no photographs to be read in {', '.join(map(str, photographs))}")


def enlarged(photograph: Image.Image, number: int) -> bytes:
    """A JPEG of 12 megapixels with so much noise that it is as large as those of a camera, 3 to 5 MB."""
    image = np.asarray(photograph.resize((4000, 3000), Image.Resampling.BICUBIC), dtype=np.float32)
    noise = np.random.default_rng(number).standard_normal((3000, 4000, 1), dtype=np.float32)
    noise += np.roll(noise, 1, axis=0) + np.roll(noise, 1, axis=1)  # the grain of a film is larger than a pixel
    return as_jpeg(Image.fromarray((image + 4.5 * noise).clip(0, 255).astype(np.uint8)))


def small(photograph: Image.Image, number: int) -> bytes:
    """A JPEG of about the size of a crop around a bird."""
    width, height = np.random.default_rng(number).integers(180, 280, size=2).tolist()
    return as_jpeg(photograph.resize((width, height), Image.Resampling.BICUBIC))


def as_jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=92)
    return file.getvalue()


def make_model(network: str, folder: Path) -> Path:
    """A model file that the older package reads as well: random weights, with a classifier that is sure of itself."""
    path = folder / f"{network}_bench.pt"
    if not path.exists():
        size, _ = NETWORKS.get(network, OTHERS)
        torch.manual_seed(0)
        net = create_network(network, CLASSES, size=(size, size))
        torch.nn.init.normal_(net.get_parameter("classifier.weight"), std=3 / net.embedding_size**0.5)
        entries = {
            "state": net.state_dict(),
            "birder_version": "v0.4.0",
            "task": "image_classification",
            "class_to_idx": {f"Species {label:03}": label for label in range(CLASSES)},
            "signature": {"inputs": [{"data_shape": [0, 3, size, size]}], "outputs": [{"data_shape": [0, CLASSES]}]},
            "rgb_stats": RGB_STATS,
        }
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(entries, path)
    return path


# The tools. Each function says the command for a task; each tool writes a CSV file with a row for each picture.


def birder(task: Task, *settings: str) -> list[str]:
    command = [sys.executable, "-m", "birder", "predict", str(task.model), str(task.pictures)]
    return [*command, "--network", task.network, "--output", str(task.out / "predictions.csv"), *settings]


def older(task: Task, *settings: str) -> list[str]:
    predict = Path(os.environ["PEER_PYTHON"]).with_name("birder-predict")
    # The one of its outputs that it writes for pictures whose species it was not told.
    return [str(predict), "-n", task.network, "-t", "bench", "--save-output", *settings, str(task.pictures)]


def timm(task: Task, dtype: str) -> list[str]:
    size, name = NETWORKS.get(task.network, OTHERS)
    if not name:
        raise Failed(f"timm has no {task.network}")
    command = [os.environ["PEER_PYTHON"], "-W", "ignore", "-c", TIMM_LOOP, name, str(size), str(CLASSES), dtype]
    return [*command, str(task.pictures), str(task.out / "predictions.csv")]


TOOLS: dict[str, Callable[[Task], list[str]]] = {
    "birder": birder,
    "torch": lambda task: birder(task, "--backend", "torch", "--precision", "fp32"),
    "older": older,
    "older-fast": lambda task: older(task, *task.older_fast),
    "timm": lambda task: timm(task, "float32"),
    "timm-bf16": lambda task: timm(task, "bfloat16"),
}


def read_answers(task: Task) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in task.out.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        best = next(header.index(name) for name in ("label_1", "species", "prediction") if name in header)
        found |= {Path(row[0]).name: row[best] for row in rows}
    wanted = len(list(task.pictures.iterdir()))
    if len(found) != wanted:
        raise Failed(f"it wrote {len(found)} of {wanted} rows into {task.out}")
    return found


# Running and measuring.


def compare(model: Path, network: str, pictures: dict[int, Path], options: argparse.Namespace) -> tuple[Costs, Answers]:
    """Let the tools take turns; one that fails is reported and left out from then on."""
    costs: Costs = defaultdict(list)
    answers: Answers = {}
    out, tools = options.out.absolute(), list(options.tools)
    for turn in range(options.rounds + 1):
        for tool in list(tools):
            # Turn 0 is not counted: files get into the cache, and what a tool keeps for later runs is made.
            for count in sorted(pictures) if turn else (1,):
                folder = out / "runs" / f"{network}-{pictures[count].name}-{tool}"
                task = Task(network, model, pictures[count], folder, options.older_fast)
                try:
                    cost = run(tool, task, out)
                    answers[tool] = read_answers(task)
                except Failed as error:
                    print(f"{network}, {tool}: {error}", flush=True)
                    tools.remove(tool)
                    break
                costs[tool, count if turn else 0].append(cost)
                facts = {"network": network, "pictures": task.pictures.name, "tool": tool, "turn": turn}
                with open(out / "measured.jsonl", "a", encoding="utf-8") as file:
                    print(json.dumps(facts | asdict(cost) | {"load": os.getloadavg()[0]}), file=file)
        tools = tools[1:] + tools[:1]
    done = [tool for tool in options.tools if tool in tools]
    return {key: costs[key] for key in costs if key[0] in done}, {tool: answers[tool] for tool in done}


def run(tool: str, task: Task, out: Path) -> Cost:
    """Run a tool to its end; what it says goes to log.txt beside its results."""
    command = TOOLS[tool](task)
    shutil.rmtree(task.out, ignore_errors=True)
    task.out.mkdir(parents=True)
    places = {"MODELS_DIR": str(task.model.parent), "RESULTS_DIR": str(task.out), "BIRDER_HOME": str(out / "home")}
    ended, peaks = threading.Event(), [0.0]
    with open(task.out / "log.txt", "wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=task.out, env=os.environ | places, stdout=log, stderr=log)
        watch = threading.Thread(target=watch_memory, args=(process.pid, ended, peaks))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watch.join()
    if process.returncode:
        words = (task.out / "log.txt").read_text(encoding="utf-8", errors="replace")
        raise Failed(f"exit code {process.returncode}\n{words[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, max(peaks))


def watch_memory(pid: int, ended: threading.Event, peaks: list[float]) -> None:
    while not ended.wait(POLL):
        peaks.append(sum(map(memory, family(pid))))


def family(pid: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def memory(pid: int) -> float:
    """Memory of a process in GiB; a page that n processes share counts as an n-th of one."""
    with contextlib.suppress(OSError):  # it has just ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**20
    return 0.0


# What is printed.


def table(costs: Costs, count: int) -> Iterator[str]:
    """Medians over the rounds, and those of the ratios, within each round, of birder to the tool."""
    of_tools = {tool: figures(costs[tool, 1], costs[tool, count], count) for tool, number in costs if number == count}
    if not of_tools:
        return
    names = list(next(iter(of_tools.values())))
    yield f"| tool | {' | '.join(names)} | birder / this: {' | '.join(name.partition(',')[0] for name in names)} |"
    yield "|---" * (1 + 2 * len(names)) + "|"
    for tool, found in of_tools.items():
        cells = [f"{median(values):.3g}" for values in found.values()]
        for name, values in of_tools.get("birder", {}).items():
            cells.append(f"{median(ours / theirs for ours, theirs in zip(values, found[name], strict=True)):.2f}")
        yield f"| {' | '.join([tool, *cells])} |"
    before = ", ".join(f"{tool} {costs[tool, 0][0].wall:.1f} s" for tool in of_tools)
    yield f"\nOne picture before the rounds, not counted: {before}."


def figures(ones: list[Cost], alls: list[Cost], count: int) -> dict[str, list[float]]:
    """One value for each round, by the head of the column."""
    pairs = list(zip(ones, alls, strict=True))
    return {
        "steady, pictures/s": [(count - 1) / (every.wall - one.wall) for one, every in pairs],
        "end to end, pictures/s": [count / every.wall for every in alls],
        "CPU, s per picture": [(every.cpu - one.cpu) / (count - 1) for one, every in pairs],
        "first row, s": [one.wall for one in ones],
        "memory, GiB": [every.memory for every in alls],
    }


def agreement(answers: Answers) -> Iterator[str]:
    """How often two tools with the same weights name the same class."""
    same_weights = {tool: found for tool, found in answers.items() if not tool.startswith("timm")}
    for (one, first), (other, second) in itertools.combinations(same_weights.items(), 2):
        same = sum(first[name] == second[name] for name in first)
        yield f"{one} and {other} name the same class for {same} of {len(first)} pictures."


if __name__ == "__main__":
    main()

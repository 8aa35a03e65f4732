"""The starter model: pack what was trained, measure it, and write its card; ``make starter-eval`` compares them.

python docs/starter.py --shared FOLDER [--model FILE] [--check]

FOLDER has the photographs: birds/{train,val,classes.csv}, detection/, hard_images/. With --model, that model (float32,
from ``birder recipes starter``) is calibrated on birds/val and packed in half precision into birder/starter/, and the
catalogue gets its checksum. Then the packed model is measured and birder/starter/README.md written; with --check it is
compared with the one that is there, and nothing is written.
"""

import argparse
import csv
import difflib
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from birder.calibration.calibrate import Found, calibrate
from birder.calibration.wanted import Wanted
from birder.data.samples import read_samples
from birder.data.taxonomy import read_taxonomy
from birder.evaluation.classification import Evaluation, evaluate
from birder.evaluation.metrics import cross_family_errors, per_family
from birder.files import write_text
from birder.hub import checksum
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.rows import Row
from birder.model_file import load_model, read_model, write_model

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "birder" / "starter" / "starter.safetensors"
CATALOGUE = ROOT / "birder" / "weights.toml"
CARD = STARTER.with_name("README.md")
TEMPLATE = Path(__file__).with_name("starter_card.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.model is not None:
        pack(options.model, options.shared)
    card = written(options.shared)
    if not options.check:
        write_text(CARD, card)
    elif difference := "\n".join(difflib.unified_diff(CARD.read_text().splitlines(), card.splitlines(), "card", "now")):
        sys.exit(difference)
    else:
        print(f"{CARD.relative_to(ROOT)} says what was measured now")


def pack(model: Path, shared: Path) -> None:
    """Half precision, calibrated as it is then, with its checksum in the catalogue."""
    file = read_model(model)
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in file.state.items()}
    write_model(STARTER, replace(file, state=state, calibration=None))
    found = calibrated(shared)
    write_model(STARTER, replace(read_model(STARTER), state=state, calibration=found.calibration))
    digest, mib = checksum.compute(STARTER), STARTER.stat().st_size / 2**20
    table = CATALOGUE.read_text(encoding="utf-8")
    entry = re.compile(r'(\[models\.starter\].*?file_size = )[\d.]+(, sha256 = ")[0-9a-f]+"', re.DOTALL)
    write_text(CATALOGUE, entry.sub(rf'\g<1>{mib:.1f}\g<2>{digest}"', table))


def calibrated(shared: Path) -> Found:
    """What is found on the validation pictures, by the packed weights."""
    net, info = load_model(STARTER)
    return calibrate(net, info, read_samples(shared / "birds" / "val", info.class_to_idx), Wanted())


def written(shared: Path) -> str:
    """The card, with figures as they come out now, in float32."""
    net, info = load_model(STARTER)
    found = calibrated(shared)
    raw = info._replace(calibration=None)
    result = evaluate(net, raw, read_samples(shared / "birds" / "val", info.class_to_idx))
    family_of = read_taxonomy(shared / "birds" / "classes.csv", result.names)
    values = {
        "parameters": f"{sum(weight.numel() for weight in net.parameters()) / 1e6:.1f}",
        "size": f"{net.size[0]} x {net.size[1]}",
        "megabytes": f"{STARTER.stat().st_size / 1e6:.1f}",
        "network": net.name,
        "pictures": str(result.pictures),
        "embedding": str(net.embedding_size),
        "features": "\n".join(f"# {line}" for line in features(net)),
        **summary(result),
        **certainty(found),
        "families": families(result, family_of),
        "across": f"{cross_family_errors(result.labels, result.predicted, result.names, family_of):.0%}",
        "confused": "\n".join(
            f"| {pair.name} | {pair.predicted} | {pair.count} | {pair.share:.0%} |" for pair in result.confused[:12]
        ),
        **whole_photographs(shared),
    }
    return TEMPLATE.read_text(encoding="utf-8").format(**values)


def features(net: torch.nn.Module) -> list[str]:
    maps = net.detection_features(torch.zeros(1, 3, *net.size))  # type: ignore[operator]
    return [f" ('{name}', {tuple(value.shape)})" for name, value in maps.items()]


def summary(result: Evaluation) -> dict[str, str]:
    names = ("top1", "top3", "top5", "macro_f1", "balanced_accuracy")
    estimates = {name: result.estimates[name] for name in names}
    return {name: f"{value.value:.1%} ({value.low:.1%} to {value.high:.1%})" for name, value in estimates.items()}


def certainty(found: Found) -> dict[str, str]:
    threshold = found.threshold
    low, high = threshold.interval if threshold else (0.0, 0.0)
    return {
        "temperature": f"{found.calibration.temperature:.2f}",
        "ece_before": f"{found.ece[0]:.1%}",
        "ece": f"{found.ece[1]:.1%}",
        "threshold": f"{threshold.threshold:.2f}" if threshold else "none",
        "answered": f"{threshold.coverage:.0%}" if threshold else "none",
        "wrong": f"{threshold.error:.1%} ({low:.1%} to {high:.1%})" if threshold else "none",
        "sets": f"{found.set_size:.1f}",
        "covered": f"{found.covered:.1%}",
    }


def families(result: Evaluation, family_of: dict[str, str]) -> str:
    rows = per_family(result.labels, result.predicted, result.names, family_of)
    rows = sorted((row for row in rows if row.samples >= 20), key=lambda row: -row.species_right)
    return "\n".join(
        f"| {row.name} | {row.species} | {row.samples} | {row.species_right:.0%} | {row.recall:.0%} |" for row in rows
    )


def whole_photographs(shared: Path) -> dict[str, str]:
    """Photographs of birds that are not cut to the bird, nearly all of species that are not in the list."""
    with Predictor(STARTER, Options(backend="torch", precision="fp32", min_score="auto")) as predictor:
        truth = photographs(shared)
        rows = list(predictor.stream(sorted(truth)))
        listed = [row for row in rows if truth[Path(row.path)].lower() in {name.lower() for name in predictor.names}]
    others = [row for row in rows if row not in listed]
    statuses = Counter(row.status for row in others)
    return {
        "others": str(len(others)),
        "not_in_list": str(statuses["not_in_list"]),
        "unsure": str(statuses["unsure"]),
        "answered_wrongly": str(statuses["ok"]),
        "listed": "\n".join(f"- {sentence(row, truth[Path(row.path)])}" for row in listed),
    }


def photographs(shared: Path) -> dict[Path, str]:
    """Whole photographs of one species each, and what they show."""
    found = {}
    for table, folder in (("detection/images.csv", "detection/images"), ("hard_images/manifest.csv", "hard_images")):
        with open(shared / table, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                path = shared / folder / row["file"]
                if row["species"] and ("detection" in table or row["file"].startswith("bird_photos/")):
                    found[path] = row["species"]
    return found


def sentence(row: Row, truth: str) -> str:
    answer = f"{row.labels[0]}, {row.scores[0]:.0%}, {row.status}" if row.labels else row.reason
    return f"{truth}: named {answer}"


if __name__ == "__main__":
    main()

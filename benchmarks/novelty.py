"""Which score tells species that a model has never seen, and is it better than a low probability alone?

python benchmarks/novelty.py MODEL --data birds/val [--train birds/train] [--others FOLDER …] [--draws 1000]

MODEL was trained on a part of the species that ``--data`` has; the others are those to be told. Of ``--train`` the
pictures of the model's species serve to fit the statistics, as the alternative to held-out pictures, and those of the
other species, which the model has not seen either, join the others. Each folder of ``--others`` is a set of its own.

Known pictures are scored by what was fitted on other known pictures. Intervals are of 95 %, by bootstrap.
"""

import argparse
from pathlib import Path

import numpy as np

from birder.calibration.calibrate import seen
from birder.calibration.novelty import Seen, fit_novelty, raw_scores, separation
from birder.data.names import composed
from birder.data.samples import Samples, read_pictures, read_samples
from birder.evaluation.estimates import Estimate
from birder.inference.embeddings import embeddings
from birder.model_file import ModelInfo, load_model
from birder.model_file.calibration import KINDS
from birder.networks import Network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--train")
    parser.add_argument("--others", nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    net, info = load_model(options.model)
    known, strange = in_and_out(net, info, read_samples(options.data))
    training = None
    if options.train:
        training, more = in_and_out(net, info, read_samples(options.train))
        strange = joined(strange, more)
    sets = {"left-out species": strange} if len(strange) else {}
    for folder in options.others:
        pictures = read_pictures(folder)
        sets[Path(folder).name] = seen(net, embeddings(net, info.rgb_stats, pictures, batch_size=16))[0]
    for name, pictures in sets.items():
        print(f"\n{name}: {len(pictures)} pictures, against {len(known)} of {len(info.class_to_idx)} known species\n")
        print("| score | fitted on | AUROC | FPR at 95 % | AUROC, more than max softmax | FPR, less | told |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        plain = raw_scores("max_softmax", {}, known), raw_scores("max_softmax", {}, pictures)
        for kind, arrays in KINDS.items():
            for source in (None, training) if arrays and training is not None else (None,):
                novelty, raw = fit_novelty(kind, known, training=source)
                theirs = raw_scores(kind, novelty.arrays, pictures)
                found = separation((raw, plain[0]), (theirs, plain[1]), draws=options.draws)
                told = (theirs > np.quantile(raw, novelty.threshold)).mean()
                fitted = ("training" if source else "held-out") if arrays else "-"
                cells = (estimate(found.auroc), estimate(found.fpr95), estimate(found.better), estimate(found.fewer))
                print(f"| {kind} | {fitted} | {' | '.join(cells)} | {told:.1%} |", flush=True)


def in_and_out(net: Network, info: ModelInfo, samples: Samples) -> tuple[Seen, Seen]:
    """What the network answers to pictures of its own species, and to those of others."""
    own = {composed(name): label for name, label in info.class_to_idx.items()}
    label_of = np.array([own.get(composed(name), -1) for name in samples.class_to_idx])
    found, _ = seen(net, embeddings(net, info.rgb_stats, samples, batch_size=16))
    labels = label_of[found.labels]
    known = found.of(labels >= 0)
    return Seen(embeddings=known.embeddings, logits=known.logits, labels=labels[labels >= 0]), found.of(labels < 0)


def joined(one: Seen, other: Seen) -> Seen:
    """All pictures of both."""
    pairs = {
        name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("embeddings", "logits", "labels")
    }
    return Seen(**pairs)


def estimate(figure: Estimate) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


if __name__ == "__main__":
    main()

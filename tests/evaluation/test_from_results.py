"""A table of results and labels give the figures that the model itself would have given."""

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.data.samples import Files, Samples, read_samples
from birder.errors import DataError
from birder.evaluation.classification import Evaluation, evaluate
from birder.evaluation.from_results import evaluation_of_results, partners
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.rows import Row
from birder.model_file import ModelInfo
from birder.networks import Network

NAMES = ("Emu", "Great Tit", "Wren")


def rows_of(evaluation: Evaluation) -> list[Row]:
    answers = [
        Row(
            path=str(path),
            labels=tuple(evaluation.names[label] for label in ranked),
            scores=tuple(map(float, scores)),
            embedding=None if evaluation.embeddings is None else evaluation.embeddings[index].astype(np.float32),
        )
        for index, (path, ranked, scores) in enumerate(
            zip(evaluation.paths, evaluation.ranked, evaluation.probabilities, strict=True)
        )
    ]
    return [*answers, *evaluation.failures]


def written(path: Path, rows: list[Row], top: int, embedding: int = 0) -> Path:
    with open_output(path, Layout(top=top, embedding=embedding)) as output:
        output.write(rows)
    return path


def samples_at(paths: list[str], labels: list[int]) -> Samples:
    return Samples(Files.at(paths), labels, {name: label for label, name in enumerate(NAMES)})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_same_figures(network: Network, info: ModelInfo, colours: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    samples = read_samples(colours, info.class_to_idx)
    wanted = evaluate(network, info, samples)
    rows = rows_of(wanted)
    random.Random(1).shuffle(rows)
    found = evaluation_of_results(written(tmp_path / f"results{suffix}", rows, 3), samples)
    assert (found.missing, found.superfluous) == (0, 0) and found.names == wanted.names
    assert list(found.paths) == list(wanted.paths)
    assert np.array_equal(found.labels, wanted.labels) and np.array_equal(found.ranked, wanted.ranked)
    assert np.abs(found.probabilities - wanted.probabilities).max() < 1e-6
    assert np.abs(found.label_probability - wanted.label_probability).max() < 1e-6
    assert [row.path for row in found.failures] == [row.path for row in wanted.failures]
    assert (found.classes, found.confused, found.top1, found.top3) == (
        wanted.classes,
        wanted.confused,
        wanted.top1,
        wanted.top3,
    )
    assert found.embeddings is None


def test_embeddings_come_along(network: Network, info: ModelInfo, colours: Path, tmp_path: Path) -> None:
    samples = read_samples(colours, info.class_to_idx)
    wanted = evaluate(network, info, samples, embeddings=True)
    assert wanted.embeddings is not None
    path = written(tmp_path / "results.npy", rows_of(wanted), 3, embedding=wanted.embeddings.shape[1])
    found = evaluation_of_results(path, samples)
    assert found.embeddings is not None and found.embeddings.dtype == np.float16
    assert np.array_equal(found.embeddings, wanted.embeddings)


def test_what_is_not_in_the_table_is_not_known(tmp_path: Path) -> None:
    rows = [
        Row(path="a/1.jpg", labels=("Wren", "Owl"), scores=(0.6, 0.3)),
        Row(path="a/2.jpg", labels=("Emu", "Wren"), scores=(0.5, 0.4), status="unsure"),
        Row(path="a/3.jpg", status="error", reason="empty: the file is empty"),
        Row(path="a/5.jpg", labels=("Wren", "Emu"), scores=(0.5, 0.4)),
        Row(path="a/6.jpg", labels=("Wren",), scores=(1.0,)),
    ]
    path = written(tmp_path / "results.csv", rows, 2)
    found = evaluation_of_results(path, samples_at([f"a/{number}.jpg" for number in (1, 2, 3, 4, 6)], [0, 2, 1, 1, 2]))
    assert (found.pictures, found.missing, found.superfluous) == (3, 1, 1)
    assert found.names == ["Emu", "Great Tit", "Wren", "Owl"]
    assert found.ranked.tolist() == [[2, 3], [0, 2], [2, -1]]
    assert found.label_probability.tolist() == [pytest.approx(value, nan_ok=True) for value in (np.nan, 0.4, 1.0)]
    assert np.isnan(found.probabilities[2, 1])
    assert [failure.code for failure in found.failures] == ["empty"]
    assert found.top1 == pytest.approx(1 / 3) and np.isnan(found.top3) and np.isnan(found.top5)
    summary = found.to_dict()
    assert summary["top3"] is None and summary["estimates"]["top3"] == {"value": None, "low": None, "high": None}
    assert (summary["missing"], summary["superfluous"], summary["unreadable"]) == (1, 1, 1)


def test_more_classes_than_are_kept_still_tell_of_the_label(tmp_path: Path) -> None:
    names = tuple(f"bird {number}" for number in range(8))
    row = Row(path="1.jpg", labels=names, scores=tuple(0.2 - number / 50 for number in range(8)))
    samples = Samples(Files.at(["1.jpg"]), [6], {name: label for label, name in enumerate(names)})
    found = evaluation_of_results(written(tmp_path / "results.csv", [row], 8), samples)
    assert found.ranked.shape == (1, 5) and found.label_probability[0] == pytest.approx(0.08)


def test_names_in_composed_and_decomposed_letters_are_the_same(tmp_path: Path) -> None:
    row = Row(path="1.jpg", labels=("Ru\u0308ppell's Parrot",), scores=(1.0,))
    samples = Samples(Files.at(["1.jpg"]), [0], {"R\u00fcppell's Parrot": 0, "Emu": 1})
    found = evaluation_of_results(written(tmp_path / "results.csv", [row], 1), samples)
    assert found.top1 == 1 and found.names == ["R\u00fcppell's Parrot", "Emu"]


def test_a_table_without_these_pictures(tmp_path: Path) -> None:
    row = Row(path="x/1.jpg", labels=("Emu",), scores=(1.0,))
    broken = Row(path="a/2.jpg", status="error", reason="missing: no such file")
    with pytest.raises(DataError, match=r"none of the 1 labelled pictures: a/2.jpg is one of these, and x/1.jpg is in"):
        evaluation_of_results(written(tmp_path / "other.csv", [row], 1), samples_at(["a/2.jpg"], [0]))
    with pytest.raises(DataError, match=r"no answer to a labelled picture; a/2.jpg: missing"):
        evaluation_of_results(written(tmp_path / "errors.csv", [row, broken], 1), samples_at(["a/2.jpg"], [0]))
    with pytest.raises(DataError, match="names no classes"):
        evaluation_of_results(
            written(tmp_path / "none.csv", [replace(row, labels=())], 0), samples_at(["x/1.jpg"], [0])
        )
    with pytest.raises(DataError, match="cannot be read"):
        evaluation_of_results(tmp_path / "nothing.csv", samples_at(["a/2.jpg"], [0]))


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        (["/d/val/Emu/1.jpg", "/d/val/Owl/1.jpg"], ["Owl/1.jpg", "Emu/1.jpg"], {0: 1, 1: 0}),
        (["val/Emu/1.jpg", "val/Owl/1.jpg"], ["/x/y/Emu/1.jpg", "/x/y/Kea/1.jpg"], {0: 0}),
        (["d/train/Emu/1.jpg", "d/val/Emu/1.jpg"], ["Emu/1.jpg"], {}),  # which of the two is not known
        (["d/Emu/1.jpg"], ["a/Emu/1.jpg", "b/Emu/1.jpg"], {}),
        (["d/Emu/1.jpg"], ["d/Emu/1.jpg", "b/Emu/1.jpg"], {0: 0}),  # the same file
        (["d/Emu/IMG_7.jpg"], ["flat/IMG_7.jpg"], {0: 0}),
        (["d/Emu/1.jpg"], [r"C:\birds\Emu\1.jpg", r"C:\birds\Owl\1.jpg"], {0: 0}),
        (["d/Emu/1.jpg", "d/Emu/2.jpg"], ["Emu/1.jpg", "Emu/1.jpg"], {}),
        (["s/a.tar/000.jpg", "s/b.tar/000.jpg"], ["t/b.tar/000.jpg"], {0: 1}),
        (["1.jpg"], ["d/1.jpg", "1.jpg"], {1: 0}),
        ([], ["1.jpg"], {}),
    ],
)
def test_partners(ours: list[str], theirs: list[str], wanted: dict[int, int]) -> None:
    assert partners(ours, theirs) == wanted


def test_links_lead_to_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "Emu").mkdir()
    (tmp_path / "Emu" / "1.jpg").touch()
    os.symlink(tmp_path / "Emu", tmp_path / "birds")
    os.symlink(tmp_path / "Emu" / "1.jpg", tmp_path / "Emu" / "z.jpg")
    ours = [str(tmp_path / "birds" / "1.jpg")]
    assert partners(ours, [str(tmp_path / "x.jpg"), str(tmp_path / "Emu" / "z.jpg")]) == {1: 0}


def test_paths_relative_to_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = [str(tmp_path / "a" / "1.jpg"), str(tmp_path / "b" / "1.jpg")]
    assert partners(ours, ["b/../b/1.jpg", "./a/1.jpg"]) == {0: 1, 1: 0}


PATHS = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join), max_size=6)


@given(PATHS, PATHS)
def test_partners_end_alike_as_no_others_do(ours: list[str], theirs: list[str]) -> None:
    found = partners([f"/no/{path}" for path in ours], [f"/where/{path}" for path in theirs])
    assert len(set(found.values())) == len(found)
    endings = [["/".join(path.split("/")[-depth:]) for depth in range(1, 5)] for path in (*ours, *theirs)]
    for their in range(len(theirs)):
        wanted = {
            our
            for our in range(len(ours))
            for depth in range(4)
            for ending in [endings[our][depth]]
            if ending.count("/") == depth
            and ending == endings[len(ours) + their][depth]
            and sum(other[depth] == ending for other in endings[: len(ours)]) == 1
            and sum(other[depth] == ending for other in endings[len(ours) :]) == 1
        }
        assert wanted == ({found[their]} if their in found else set())

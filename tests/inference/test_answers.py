"""From logits to rows: which classes, in which order, how probable."""

import numpy as np
import pytest
import torch

from birder.errors import ConfigError
from birder.inference.answers import Answers, embedded, highest
from birder.inference.checklist import Checklist
from birder.inference.results.layout import Layout
from birder.inference.rows import NOT_FINITE, Row

NAMES = ["Wren", "Emu", "Magpie", "Snowy Owl", "Great Tit"]


def pictures(count: int) -> list[Row]:
    return [Row(path=f"{number}.jpg", taken="2026-05-17", stamp=(number, 7)) for number in range(count)]


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32) * 4


def test_scores_are_the_softmax_best_first(logits: np.ndarray) -> None:
    rows = Answers(names=NAMES, top=3)(pictures(50), logits)
    expected = torch.softmax(torch.from_numpy(logits).double(), dim=1)
    values, order = expected.topk(3)
    assert [row.labels for row in rows] == [tuple(NAMES[label] for label in labels) for labels in order.tolist()]
    np.testing.assert_allclose([row.scores for row in rows], values, rtol=1e-7)  # which is half a step of float32
    assert all(np.float32(score) == score for row in rows for score in row.scores)
    assert [(row.path, row.taken, row.stamp, row.status, row.open_scores) for row in rows] == [
        (f"{number}.jpg", "2026-05-17", (number, 7), "ok", ()) for number in range(50)
    ]


def test_a_reason_stays() -> None:
    row = Row(path="x", reason="truncated: read as far as it goes")
    assert Answers(names=NAMES)([row], np.zeros((1, 5), np.float32))[0].reason == row.reason


def test_of_equal_ones_the_lower_label_comes_first() -> None:
    logits = np.array([[1, 3, 3, 1, 3], [0, 0, 0, 0, 0]], np.float32)
    rows = Answers(names=NAMES, top=4)(pictures(2), logits)
    assert rows[0].labels == ("Emu", "Magpie", "Great Tit", "Wren")
    assert rows[1].labels == tuple(NAMES[:4])


@pytest.mark.parametrize("count", [1, 5, 64, 65, 200])
def test_both_ways_to_find_the_highest_agree_with_sorting(count: int) -> None:
    values = np.random.default_rng(1).integers(0, 40, (30, 200)).astype(np.float64)  # many are equal
    expected = [sorted(range(200), key=lambda label, row=row: (-row[label], label))[:count] for row in values]  # type: ignore[misc]
    assert highest(values, count).tolist() == expected


def test_top_and_all(logits: np.ndarray) -> None:
    rows = pictures(50)
    assert {len(row.labels) for row in Answers(names=NAMES, top=99)(rows, logits)} == {5}
    assert Answers(names=NAMES, top=None).layout == Layout(top=5)
    every = Answers(names=NAMES, top=None)(rows, logits)
    np.testing.assert_allclose([sum(row.scores) for row in every], 1, rtol=1e-6)
    checklist = Checklist(labels=(1, 4))
    assert Answers(names=NAMES, top=3, checklist=checklist).layout == Layout(top=2, open_scores=True)


def test_with_a_checklist_both_scores_are_there(logits: np.ndarray) -> None:
    checklist = Checklist(labels=(1, 3, 4))
    rows = Answers(names=NAMES, top=2, checklist=checklist)(pictures(50), logits)
    listed, everything = checklist.restrict(logits), torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    for row, among_listed, among_all in zip(rows, listed, everything, strict=True):
        order = np.argsort(-among_listed, kind="stable")[:2]
        labels = [checklist.labels[place] for place in order]
        assert row.labels == tuple(NAMES[label] for label in labels)
        np.testing.assert_allclose(row.scores, among_listed[order], rtol=1e-7)
        np.testing.assert_allclose(row.open_scores, among_all[labels], rtol=1e-7)


def test_views_are_averaged_as_probabilities() -> None:
    views = np.random.default_rng(2).normal(size=(5, 20, 5)).astype(np.float32) * 6
    mean = torch.softmax(torch.from_numpy(views).double(), dim=2).mean(dim=0).numpy()
    checklist = Checklist(labels=(0, 2, 4))
    for answers in (Answers(names=NAMES, top=None), Answers(names=NAMES, top=None, checklist=checklist)):
        expected = mean if answers.checklist is None else mean[:, [0, 2, 4]] / mean[:, [0, 2, 4]].sum(1, keepdims=True)
        for row, values in zip(answers(pictures(20), views), expected, strict=True):
            np.testing.assert_allclose(row.scores, -np.sort(-values), rtol=1e-6)


def test_unsure_below_the_least_score() -> None:
    logits = np.log(np.array([[0.6, 0.1, 0.1, 0.1, 0.1], [0.4, 0.3, 0.1, 0.1, 0.1], [0.5, 0.2, 0.1, 0.1, 0.1]]))
    rows = Answers(names=NAMES, min_score=0.49)(pictures(3), logits.astype(np.float32))
    assert [row.status for row in rows] == ["ok", "unsure", "ok"]
    assert rows[1].labels[0] == "Wren"
    assert Answers(names=["a", "b"], min_score=0.5)(pictures(1), np.zeros((1, 2), np.float32))[0].status == "ok"
    restricted = Answers(names=NAMES, min_score=0.55, checklist=Checklist(labels=(0, 1)))
    assert [row.status for row in restricted(pictures(3), logits)] == ["ok", "ok", "ok"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("listed", [False, True])
def test_what_is_no_number_is_an_error_and_touches_no_other(logits: np.ndarray, wrong: float, listed: bool) -> None:
    answers = Answers(names=NAMES, checklist=Checklist(labels=(0, 1)) if listed else None)
    before = answers(pictures(50), logits)
    logits[7, 2] = wrong
    after = answers(pictures(50), logits)
    assert after[7] == Row(path="7.jpg", taken="2026-05-17", stamp=(7, 7), status="error", reason=NOT_FINITE)
    assert after[7].code == "not_finite"
    assert after[:7] + after[8:] == before[:7] + before[8:]
    views = np.stack([np.zeros_like(logits), logits])
    assert [row.path for row in answers(pictures(50), views) if row.status == "error"] == ["7.jpg"]


def test_the_answer_depends_on_no_other_in_the_batch(logits: np.ndarray) -> None:
    answers = Answers(names=NAMES, checklist=Checklist(labels=(0, 1, 3)))
    alone = [answers([row], logits[index : index + 1])[0] for index, row in enumerate(pictures(50))]
    assert alone == answers(pictures(50), logits)
    assert answers([], logits[:0]) == []


def test_embeddings_are_copied() -> None:
    numbers = np.random.default_rng(3).normal(size=(50, 8)).astype(np.float32)
    expected = numbers.copy()
    numbers[4, 0] = expected[4, 0] = np.nan
    rows = embedded(pictures(50), numbers)
    numbers[:] = 0
    assert rows[4].status == "error" and rows[4].embedding is None and rows[4].labels == ()
    for index in (0, 3, 5, 49):
        np.testing.assert_array_equal(rows[index].embedding, expected[index])


def test_a_temperature_divides_the_logits(logits: np.ndarray) -> None:
    views = np.stack([logits, logits[::-1]])
    expected = torch.softmax(torch.from_numpy(views.copy()).double() / 2.5, dim=2).mean(dim=0).topk(5).values
    rows = Answers(names=NAMES, temperature=2.5)(pictures(50), views)
    np.testing.assert_allclose([row.scores for row in rows], expected, rtol=1e-6)
    assert Answers(names=NAMES, temperature=1.0)(pictures(50), logits) == Answers(names=NAMES)(pictures(50), logits)


class Length:
    """Stands for a score of novelty: the length of the embedding, and what was asked."""

    threshold = 0.5

    def __call__(self, embedding: np.ndarray, logits: np.ndarray) -> float:
        return float(np.linalg.norm(embedding.astype(np.float64))) + 0.0 * float(logits.sum())


def test_what_is_too_new_is_not_in_the_list(logits: np.ndarray) -> None:
    embeddings = np.zeros((3, 2), np.float32)
    embeddings[:, 0] = [0.5, 0.50001, 0.9]
    answers = Answers(names=NAMES, novelty=Length(), min_score=1.0)  # type: ignore[arg-type]
    assert answers.layout == Layout(top=5, novelty=True)
    rows = answers(pictures(3), logits[:3], embeddings)
    assert [row.status for row in rows] == ["unsure", "not_in_list", "not_in_list"]
    assert [row.novelty for row in rows] == embeddings[:, 0].tolist()
    assert all(row.labels for row in rows)
    listed = Answers(names=NAMES, novelty=Length(), checklist=Checklist(labels=(0, 1)))  # type: ignore[arg-type]
    assert [row.novelty for row in listed(pictures(3), logits[:3], embeddings)] == embeddings[:, 0].tolist()


def test_novelty_is_the_mean_over_the_views(logits: np.ndarray) -> None:
    embeddings = np.zeros((2, 3, 2), np.float32)
    embeddings[0, :, 0], embeddings[1, :, 1] = [0.25, 0.5, 0.75], [0.5, 0.25, 0.25]
    rows = Answers(names=NAMES, novelty=Length())(pictures(3), np.stack([logits[:3]] * 2), embeddings)  # type: ignore[arg-type]
    assert [row.novelty for row in rows] == [0.375, 0.375, 0.5]


def test_novelty_that_is_no_number_is_an_error(logits: np.ndarray) -> None:
    embeddings = np.zeros((3, 2), np.float32)
    embeddings[1, 1] = np.nan
    rows = Answers(names=NAMES, novelty=Length())(pictures(3), logits[:3], embeddings)  # type: ignore[arg-type]
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert rows[1].novelty is None and rows[1].code == "not_finite"


@pytest.mark.parametrize("options", [{"top": 0}, {"min_score": -0.1}, {"min_score": 1.5}, {"min_score": float("nan")}])
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Answers(names=NAMES, **options)  # type: ignore[arg-type]

"""Wrong labels that were planted are found, by the rule of the paper, picture by picture."""

import math
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from birder.evaluation.classification import Evaluation
from birder.evaluation.suspects import suspected_labels


def evaluation(probabilities: np.ndarray, labels: np.ndarray, top: int = 5) -> Evaluation:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return Evaluation(
        names=[f"bird {number}" for number in range(probabilities.shape[1])],
        paths=[Path(f"{number}.jpg") for number in range(len(labels))],
        labels=labels,
        ranked=order.astype(np.int32),
        probabilities=np.take_along_axis(probabilities, order, axis=1),
        label_probability=probabilities[np.arange(len(labels)), labels],
        failures=[],
    )


EIGHTHS = st.lists(st.integers(0, 8), min_size=4, max_size=4).map(lambda row: [part / 8 for part in row])


@given(st.lists(st.tuples(EIGHTHS, st.integers(0, 3)), min_size=1, max_size=20))
def test_the_rule_of_the_paper(pictures: list[tuple[list[float], int]]) -> None:
    found = suspected_labels(
        evaluation(np.array([row for row, _ in pictures], np.float32), np.array([label for _, label in pictures]))
    )
    usual = {}
    for label in range(4):
        own = [row[label] for row, truth in pictures if truth == label]
        usual[label] = math.fsum(own) / len(own) if own else math.inf
    wanted = {}
    for index, (row, label) in enumerate(pictures):
        sure = [other for other in range(4) if row[other] >= usual[other]]
        likeliest = max(sure, key=lambda other: (row[other], -other), default=label)
        if likeliest != label:
            wanted[index] = (label, likeliest, row[likeliest] - row[label])
    assert {row.index: (row.label, row.predicted, row.score) for row in found} == wanted
    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)


def test_planted_labels_are_found() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 20, 2000)
    logits = random.normal(0, 1, (2000, 20))
    logits[np.arange(2000), truth] += random.normal(4, 1.5, 2000)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = random.choice(2000, 100, replace=False)
    labels = truth.copy()
    labels[planted] = (truth[planted] + random.integers(1, 20, 100)) % 20
    shown = evaluation(probabilities.astype(np.float32), labels)
    found = suspected_labels(shown)
    assert set(planted) <= set(np.flatnonzero(~shown.right)) and (~shown.right).sum() > 350  # most are true mistakes
    assert len(found) > 50 and {row.index for row in found[:50]} <= set(planted)
    assert all(row.label == labels[row.index] != row.predicted == truth[row.index] for row in found[:50])


def test_a_label_that_is_not_known_counts_as_improbable_and_teaches_nothing() -> None:
    shown = evaluation(np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]], np.float32), np.array([0, 1, 1]))
    shown.label_probability[1] = math.nan
    (row,) = [row for row in suspected_labels(shown) if row.index == 1] or [None]
    assert row is None  # 0.5 is less than the 0.6 that the network has for class 0 as a rule
    shown.probabilities[1, 0] = 0.65
    (row,) = (row for row in suspected_labels(shown) if row.index == 1)
    assert (row.label, row.predicted, row.score) == (1, 0, np.float32(0.65))


def test_a_class_is_as_sure_as_its_known_labels_say() -> None:
    shown = evaluation(np.array([[0.3, 0.5], [0.6, 0.4], [0.3, 0.7]], np.float32), np.array([0, 1, 1]))
    shown.label_probability[1] = math.nan
    assert 0 not in [row.index for row in suspected_labels(shown)]  # 0.5 is less than the 0.7 of the one that is known
    shown.label_probability[1] = 0.1
    assert [row.index for row in suspected_labels(shown)][-1] == 0


def test_the_places_behind_the_last_answer_are_no_class() -> None:
    shown = evaluation(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([0, 1]))
    shown.ranked[0, 1], shown.probabilities[0, 1] = -1, math.nan
    assert suspected_labels(shown) == []


def test_nothing_is_suspected_where_all_is_right() -> None:
    assert suspected_labels(evaluation(np.eye(4, dtype=np.float32), np.arange(4))) == []

"""Counts over results, some of their rows, and two runs compared."""

import itertools
from collections import Counter

import pytest

from birder.errors import ConfigError
from birder.inference.results.comparison import compare
from birder.inference.results.selection import Selection
from birder.inference.results.summary import Summary
from birder.inference.rows import Row

ROWS = [
    Row(path="a/1.jpg", labels=("Wren", "Emu"), scores=(0.9, 0.05), taken="2026-05-17T06:12:44"),
    Row(path="a/2.jpg", labels=("Emu", "Wren"), scores=(0.4, 0.3), status="unsure", taken="2026-06-01T00:00:00"),
    Row(
        path="b/3.jpg", labels=("Wren", "Emu"), scores=(0.5, 0.3), reason="truncated: half", taken="2025-01-01T00:00:00"
    ),
    Row(path="b/4.jpg", status="error", reason="empty: the file is empty"),
    Row(path="b/5.jpg", labels=("Great Tit", "Emu"), scores=(0.7, 0.2)),
    Row(path="6.jpg", status="error", reason="empty: the file is empty", taken="2026-05-17T06:12:45"),
]


def test_species_are_counted() -> None:
    summary = Summary()
    summary.add(ROWS[:2])
    summary.add(iter(ROWS[2:]))
    assert summary.statuses == Counter(ok=3, unsure=1, error=2)
    assert summary.codes == Counter(truncated=1, empty=2)
    assert [(one.name, one.sure, one.unsure, one.first, one.last) for one in summary.species] == [
        ("Wren", 2, 0, "2025-01-01T00:00:00", "2026-05-17T06:12:44"),
        ("Emu", 0, 1, "2026-06-01T00:00:00", "2026-06-01T00:00:00"),
        ("Great Tit", 1, 0, "", ""),
    ]
    assert summary.species[0].mean_score == pytest.approx(0.7)
    assert [row.path for row in summary.least_sure] == ["a/2.jpg", "b/3.jpg", "b/5.jpg", "a/1.jpg"]


def test_the_least_sure_are_the_lowest_and_the_earliest_of_equal_ones() -> None:
    scores = [round((number * 7919 % 97) / 97, 6) for number in range(300)]
    rows = [Row(path=str(number), labels=("x",), scores=(score,)) for number, score in enumerate(scores)]
    summary = Summary(listed=7)
    summary.add(rows)
    assert summary.least_sure == sorted(rows, key=lambda row: row.scores)[:7]
    none = Summary(listed=0)
    none.add(rows)
    assert none.least_sure == []


def test_by_folder_and_by_month() -> None:
    summary = Summary(by="folder")
    summary.add(ROWS)
    assert [(one.group, one.name) for one in summary.species] == [
        ("a", "Emu"), ("a", "Wren"), ("b", "Great Tit"), ("b", "Wren")
    ]  # fmt: skip
    months = Summary(by="month")
    months.add(ROWS)
    assert [one.group for one in months.species] == ["", "2025-01", "2026-05", "2026-06"]


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({}, "123456"),
        ({"species": ["wren"]}, "13"),
        ({"species": ["WREN", "great  tit"]}, "135"),
        ({"species": ["Penguin"]}, ""),
        ({"statuses": ["error"]}, "46"),
        ({"statuses": ["ok", "unsure"]}, "1235"),
        ({"codes": ["truncated"]}, "3"),
        ({"min_score": 0.5}, "135"),
        ({"max_score": 0.5}, "23"),
        ({"min_score": 0.5, "max_score": 0.7}, "35"),
        ({"min_score": 0.0}, "1235"),
        ({"taken_after": "2026"}, "126"),
        ({"taken_after": "2026-05-17T06:12:45"}, "26"),
        ({"taken_after": "2026-05-17 06:12"}, "126"),
        ({"taken_before": "2026-06"}, "136"),
        ({"taken_before": "2026-06-01"}, "136"),
        ({"taken_after": "2026-05", "taken_before": "2026-06"}, "16"),
        ({"taken_after": "2026-05", "statuses": ["ok"], "species": ["wren"]}, "1"),
    ],
)
def test_rows_that_fit(options: dict[str, object], paths: str) -> None:
    found = Selection(**options).rows(ROWS)  # type: ignore[arg-type]
    assert "".join(row.path.removesuffix(".jpg")[-1] for row in found) == paths


@pytest.mark.parametrize("time", ["yesterday", "2026-5", "17.05.2026", "2026-05-17T06:12:44Z"])
def test_times_that_are_none(time: str) -> None:
    with pytest.raises(ConfigError, match=r"taken_before: .* is no time such as 2026-05"):
        Selection(taken_before=time)


def test_a_species_that_nobody_saw() -> None:
    selection = Selection(species=["Wern", "emu"])
    assert [row.path for row in selection.rows(ROWS)] == ["a/2.jpg"]
    assert selection.hint() == "no picture shows Wern; did you mean Wren?"


def row(path: str, *pairs: tuple[str, float], status: str = "ok") -> Row:
    return Row(
        path=path,
        labels=tuple(label for label, _ in pairs),
        scores=tuple(score for _, score in pairs),
        status=status,  # type: ignore[arg-type]
    )


FIRST = [
    row("same", ("Wren", 0.9), ("Emu", 0.1)),
    row("near", ("Wren", 0.51), ("Emu", 0.49)),
    row("far", ("Wren", 0.95), ("Emu", 0.05)),
    row("gone", ("Wren", 0.9)),
    row("broken", status="error"),
    row("less", ("Wren", 0.9), ("Emu", 0.1)),
]
SECOND = [
    row("same", ("Wren", 0.8), ("Emu", 0.2)),
    row("near", ("Emu", 0.505), ("Wren", 0.495)),
    row("far", ("Emu", 0.9), ("Owl", 0.09)),
    row("new", ("Wren", 0.9)),
    row("broken", ("Wren", 0.9)),
    row("less", ("Wren", 0.3), ("Emu", 0.2), status="unsure"),
]


@pytest.mark.parametrize("order", [list, reversed, lambda rows: rows[3:] + rows[:3]])
def test_two_runs(order: object) -> None:
    result = compare(FIRST, order(SECOND))  # type: ignore[operator]
    assert (result.matched, result.answered, result.same) == (5, 4, 2)
    assert result.only == (1, 1) and result.examples == (["gone"], ["new"])
    assert result.statuses == {("ok", "ok"): 3, ("error", "ok"): 1, ("ok", "unsure"): 1}
    assert [(change.path, change.labels, change.scores) for change in result.changes] == [
        ("far", ("Wren", "Emu"), (0.95, 0.9)),
        ("near", ("Wren", "Emu"), (0.51, 0.505)),
    ]
    assert [change.difference for change in result.changes] == pytest.approx([0.95, 0.015])
    assert result.greatest == pytest.approx(0.95)
    assert not result.equal


def test_equal_runs() -> None:
    result = compare(FIRST, iter(FIRST))
    assert result.equal and result.changes == [] and result.greatest == 0 and result.matched == 6
    assert compare([], []).equal
    for other in (FIRST[1:], [*FIRST, row("x")], [*FIRST[:5], row("less", ("Emu", 0.9))]):
        assert not compare(FIRST, other).equal
        assert not compare(other, FIRST).equal
    nearly = [*FIRST[:5], row("less", ("Wren", 0.7))]
    assert compare(FIRST, nearly).equal and compare(FIRST, nearly).greatest == pytest.approx(0.2)


def test_a_path_that_is_there_twice() -> None:
    first = [row("x", ("Wren", 0.9)), row("x", ("Emu", 0.8)), row("y", ("Owl", 0.7))]
    for order in itertools.permutations(range(3)):
        other = [first[place] for place in order]
        result = compare(first, other)
        assert (result.matched, result.only) == (3, (0, 0))
        assert result.equal == (order.index(0) < order.index(1))
    assert compare(first, first[1:]).only == (1, 0)


def test_only_the_largest_changes_are_kept() -> None:
    first = [row(str(number), ("Wren", number / 100), ("Emu", 0)) for number in range(100)]
    second = [row(str(number), ("Emu", number / 100), ("Wren", 0)) for number in range(100)]
    assert [change.path for change in compare(first, second, listed=3).changes] == ["99", "98", "97"]
    assert compare(first, second, listed=0).changes == []

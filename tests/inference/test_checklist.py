"""Checklists: how they are read, and their probabilities against ones computed in double numbers."""

from pathlib import Path

import numpy as np
import pytest

from birder.errors import ConfigError
from birder.inference.checklist import Checklist, log_softmax

NAMES = ["Parus major", "Great Tit", "Pica pica", "Ægithalos caudatus", "emu", "Emu", "Long-tailed Duck"]


def labels(text: str | bytes, tmp_path: Path, name: str = "list.txt") -> tuple[int, ...]:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Checklist.from_file(path, NAMES).labels


def test_one_name_in_a_line(tmp_path: Path) -> None:
    text = "# of my garden\n\nPica pica\n  parus   MAJOR  # common\nGreat_Tit\r\nPica pica\n"
    assert labels(text, tmp_path) == (0, 1, 2)
    assert labels("\ufeffPica pica", tmp_path) == (2,)
    assert labels("\u00e6githalos caudatus", tmp_path) == (3,)  # lower case
    assert labels("Long-tailed\u00a0Duck", tmp_path) == (6,)


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    assert labels("emu", tmp_path) == (4,)
    assert labels("Emu", tmp_path) == (5,)
    assert labels("EMU", tmp_path) == (4, 5)


@pytest.mark.parametrize(
    "text",
    [
        "label\nPica pica\nEmu\n",
        "id,Species,n\n1,Pica pica,7\n2, Emu ,\n3,,\n",
        'id;label\n1;"Pica pica"\n2;Emu\n',
        "name\tstatus\nPica pica\trare\nEmu\t\n",
        "\ufefflabel,x\nPica pica,\nEmu,\n",
        "Pica pica\nEmu\n",  # a list in spite of its name
    ],
)
def test_a_table(text: str, tmp_path: Path) -> None:
    assert labels(text, tmp_path, "list.csv") == (2, 5)


def test_unknown_names_are_counted_and_guessed(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("Emu\nPica pika\nYeti\n" + "".join(f"Ghost {number}\n" for number in range(7)))
    checklist = Checklist.from_file(path, NAMES)
    assert checklist.unknown[:2] == ("Pica pika", "Yeti") and len(checklist.unknown) == 9
    assert checklist.notice == (
        f"{path}: 9 of 10 names are no classes of the model: Pica pika, did you mean Pica pica?; Yeti; "
        "Ghost 0; Ghost 1; Ghost 2; and 4 more"
    )
    assert Checklist.from_names(["Emu"], NAMES).notice == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", b"", "names nothing"),
        ("list.txt", b"# nothing\n", "names nothing"),
        (
            "list.txt",
            b"Pica pika\nYeti\n",
            "2 of 2 names are no classes .* did you mean Pica pica.*must name at least one",
        ),
        ("list.txt", "Häher".encode("latin-1"), "is not UTF-8"),
        ("list.txt", "Emu".encode("utf-16"), "is not UTF-8"),
        ("list.csv", b"id,bird\n1,Emu\n", "has no column label or species or name, only id, bird"),
        ("gone.txt", None, "cannot be read: No such file"),
    ],
)
def test_useless_lists(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        Checklist.from_file(tmp_path / name, NAMES)
    assert str(tmp_path / name) in str(raised.value)


def reference(logits: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """The definition, in numbers of 64 bits of mantissa: the share of each listed class in the sum of the listed."""
    listed = np.asarray(logits, np.longdouble)[:, chosen]
    weights = np.exp(listed - listed.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float64)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_probabilities_are_those_among_the_listed(scale: float) -> None:
    logits = (np.random.default_rng(0).normal(size=(200, 7)) * scale).astype(np.float32)
    checklist = Checklist(labels=(1, 2, 6))
    found = checklist.restrict(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference(logits, checklist.labels), rtol=1e-13)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(checklist.restrict(log_softmax(logits)), found, rtol=1e-12)


@pytest.mark.parametrize("gap", [69.0, 700.0, 20_000.0])
def test_however_small_the_listed_probabilities_are(gap: float) -> None:
    """69 is a probability of 1e-30; one of exp(-20000) is no number of any kind."""
    logits = np.array([[gap, 1.0, 2.0, 0, 0, 0, 0.5]])
    checklist = Checklist(labels=(1, 2, 6))
    expected = reference(logits, checklist.labels)
    np.testing.assert_allclose(checklist.restrict(logits), expected, rtol=1e-14)
    np.testing.assert_allclose(checklist.restrict(log_softmax(logits)), expected, rtol=1e-11)


def test_a_list_of_one() -> None:
    assert Checklist(labels=(4,)).restrict(np.ones((2, 7))).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    "text", ["id,id,label\n1,2,Wren\n", ",,species\n1,2,Wren\n", "label\nWren\n", "label;id\nWren;1\n;2\n"]
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert Checklist.from_file(tmp_path / "list.csv", ["Emu", "Wren"]).labels == (1,)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label\n" + "x" * 200_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="no table that can be read"):
        Checklist.from_file(tmp_path / "list.csv", ["Emu", "Wren"])

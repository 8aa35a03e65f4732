"""Nearest neighbours are those of an oracle, in one order, and tables that do not fit are refused."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.errors import ConfigError, DataError
from birder.inference.results.formats import index_of
from birder.inference.results.layout import Layout
from birder.inference.results.output import open_output
from birder.inference.results.run_file import Run, run_file, write_run
from birder.inference.rows import Row
from birder.serving import similar as module
from birder.serving.similar import Neighbour, Similar

DIGEST = "ab" * 32
RUN = Run(command="embed", model={"name": "wren", "sha256": DIGEST}, options={}, backend="torch fp32")


def rows(embeddings: np.ndarray) -> list[Row]:
    return [Row(path=f"birds/{number}.jpg", embedding=values) for number, values in enumerate(embeddings)]


def drawn(count: int, size: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def cosines(asked: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(B, D), (N, D) -> (B, N), in float64."""
    asked, kept = (values.astype(np.float64) for values in (asked, kept))
    return asked @ kept.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(kept, axis=1)


def write(path: Path, some: list[Row], size: int = 24, run: Run | None = RUN) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with open_output(path, Layout(embedding=size)) as output:
        output.write(some)
    if run is not None:
        write_run(path, run)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 24 * 7)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("count", "wanted"), [(1, 3), (6, 3), (7, 3), (8, 3), (100, 1), (100, 12), (100, 1000)])
def test_neighbours_are_those_of_scikit_learn(count: int, wanted: int) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    kept, asked = drawn(count), drawn(9, seed=1)
    oracle = neighbors.NearestNeighbors(n_neighbors=min(wanted, count), metric="cosine", algorithm="brute")
    distances, numbers = oracle.fit(kept.astype(np.float64)).kneighbors(asked.astype(np.float64))
    found = Similar(rows(kept), 24).nearest(asked, wanted)
    assert [[each.picture for each in some] for some in found] == numbers.tolist()
    similarities = np.array([[each.similarity for each in some] for some in found])
    assert np.abs(similarities - (1 - distances)).max() < 1e-7


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 4), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_coarse_numbers_make_ties_and_the_lower_number_comes_first(
    count: int, size: int, wanted: int, seed: int, length: int
) -> None:
    """Rows of three values each: many are copies of others, many are zeros."""
    random = np.random.default_rng(seed)
    kept, asked = (random.integers(-1, 2, (rows, size)).astype(np.float32) for rows in (count, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_NUMBERS", length * size)
        found = Similar(rows(kept), size).nearest(asked, wanted)
    with np.errstate(invalid="ignore"):
        oracle = np.nan_to_num(cosines(asked, kept), nan=0.0)
    for some, exact in zip(found, oracle, strict=True):
        numbers = [each.picture for each in some]
        assert len(set(numbers)) == len(numbers) == min(wanted, count)
        assert [each.similarity for each in some] == pytest.approx(np.sort(exact)[::-1][:wanted].tolist(), abs=1e-7)
        assert [each.similarity for each in some] == pytest.approx(exact[numbers].tolist(), abs=1e-7)
        assert some == sorted(some, key=lambda each: (-each.similarity, each.picture))
        for number in numbers:  # a copy with a lower number is there, too
            assert set(np.flatnonzero((kept[:number] == kept[number]).all(axis=1))) <= set(numbers)


def test_copies_are_told_by_their_numbers_alone() -> None:
    """A product of matrices may give copies other last bits at other places of the matrix."""
    kept = drawn(2003, 401)
    kept[[5, 700, 1400, 2002]] = kept[1000]
    found = Similar(rows(kept), 401).nearest(3 * kept[[1000]], 5)[0]
    assert [each.picture for each in found] == [5, 700, 1000, 1400, 2002]
    assert len({each.similarity for each in found}) == 1
    assert found[0].similarity == pytest.approx(1, abs=1e-7)
    assert found[0].similarity <= 1


def test_the_company_changes_no_answer() -> None:
    similar, asked = Similar(rows(drawn(500, 40)), 40), drawn(17, 40, seed=1)
    together = similar.nearest(asked, 6)
    assert together == [similar.nearest(one[None], 6)[0] for one in asked]
    assert together == similar.nearest(asked[::-1], 6)[::-1]


def test_zeros_are_like_nothing_and_nan_has_no_neighbours() -> None:
    kept = drawn(4)
    kept[2] = 0
    asked = np.stack([np.zeros(24), np.full(24, np.nan), kept[1], -kept[1]]).astype(np.float32)
    zeros, nan, itself, opposite = Similar(rows(kept), 24).nearest(asked, 4)
    assert zeros == [Neighbour(number, 0.0) for number in range(4)]
    assert nan == []
    assert itself[0] == Neighbour(1, pytest.approx(1.0))
    assert opposite[-1] == Neighbour(1, pytest.approx(-1.0))
    assert Neighbour(2, 0.0) in itself


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e30, 1e38])
def test_lengths_of_any_size(scale: float) -> None:
    kept = np.eye(3, 5, dtype=np.float32) * np.float32(scale)
    found = Similar(rows(kept), 5).nearest(kept[[1]], 2)
    assert found == [[Neighbour(1, 1.0), Neighbour(0, 0.0)]]


@pytest.mark.parametrize("wanted", [0, -1])
def test_none_may_be_asked_for(wanted: int) -> None:
    assert Similar(rows(drawn(4)), 24).nearest(drawn(2), wanted) == [[], []]
    assert Similar(rows(drawn(4)), 24).nearest(drawn(0), wanted) == []


@pytest.mark.parametrize("shape", [(24,), (2, 23), (1, 1, 24)])
def test_embeddings_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"must be \(B, 24\)"):
        Similar(rows(drawn(4)), 24).nearest(np.zeros(shape), 1)


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_table_is_read_and_rows_without_embedding_are_left_out(tmp_path: Path, suffix: str) -> None:
    some = rows(drawn(30))
    some[3] = Row(path="bad.jpg", status="error", reason="empty: the file is empty")
    some[20] = replace(some[20], path="wr\udce4n, ü.jpg")
    path = write(tmp_path / f"index{suffix}", some)
    similar = Similar.from_file(path, model_digest=DIGEST, embedding_size=24)
    kept = [row for row in some if row.embedding is not None]
    assert list(similar.paths) == [row.path for row in kept]
    assert similar.nearest(drawn(5, seed=1), 4) == Similar(kept, 24).nearest(drawn(5, seed=1), 4)


def test_memory_is_that_of_the_numbers() -> None:
    count, size = 40_000, 64

    def many() -> Iterator[Row]:
        random = np.random.default_rng(0)
        for number in range(count):
            yield Row(path=f"{number}.jpg", embedding=random.random(size, dtype=np.float32))

    tracemalloc.start()
    try:
        similar = Similar(many(), size)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    numbers = 4 * count * size
    assert len(similar.paths) == count
    assert kept < 1.3 * numbers
    assert most - kept < 7 * 4 * module._BLOCK_NUMBERS  # a block, and it in float64 three times


def refused(path: Path, error: type[Exception], words: str, digest: str = DIGEST, size: int = 24) -> None:
    with pytest.raises(error, match=words) as caught:
        Similar.from_file(path, model_digest=digest, embedding_size=size)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "no.npy", DataError, "cannot be read: No such file")
    refused(tmp_path / "no.xlsx", DataError, "results are read from files that end in")


def test_answers_are_no_embeddings(tmp_path: Path) -> None:
    with open_output(tmp_path / "results.csv", Layout(top=1)) as output:
        output.write([Row(path="1.jpg", labels=("Wren",), scores=(0.5,))])
    refused(tmp_path / "results.csv", DataError, "no embeddings.*birder embed MODEL FOLDER --output results.csv")


def test_the_table_beside_an_array(tmp_path: Path) -> None:
    refused(index_of(write(tmp_path / "index.npy", rows(drawn(2)))), DataError, "give the array")


def test_embeddings_of_another_model(tmp_path: Path) -> None:
    path = write(tmp_path / "index.npy", rows(drawn(2)))
    refused(path, ConfigError, r"another model, wren \(sha256 abababababab…, not cdcdcdcdcdcd…\)", "cd" * 32)
    refused(path, ConfigError, "embeddings of 24 numbers, and those of the model have 25", size=25)


def test_without_an_account_only_the_size_tells(tmp_path: Path) -> None:
    path = write(tmp_path / "index.npy", rows(drawn(2)), run=None)
    assert len(Similar.from_file(path, model_digest="any", embedding_size=24).paths) == 2
    refused(path, ConfigError, "of another model", size=25)


def test_damaged_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "index.npy", rows(drawn(2)))
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, DataError, "do not belong together")
    run_file(path).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        Similar.from_file(path, model_digest=DIGEST, embedding_size=24)


def test_tables_without_any_embedding(tmp_path: Path) -> None:
    refused(write(tmp_path / "none.npy", []), DataError, "no picture with an embedding")
    some = [Row(path="bad.jpg", status="error", reason="empty: the file is empty")]
    refused(write(tmp_path / "bad.npy", some), DataError, "no picture with an embedding")


def test_embeddings_that_are_no_numbers(tmp_path: Path) -> None:
    kept = drawn(5)
    kept[3, 7] = np.inf
    refused(write(tmp_path / "index.npy", rows(kept)), DataError, "row 4 has an embedding with values that are no")


def test_the_rounding_of_a_product_chooses_nothing() -> None:
    """Whatever errors a product in float32 may make, within its bound."""
    random, size = np.random.default_rng(0), 400
    units = [values / np.linalg.norm(values) for values in random.standard_normal((300, size))]
    block = np.array(units, np.float32)
    block[100:200] = block[100] + random.uniform(-1e-7, 1e-7, (100, size))  # so near that a product cannot tell
    asked = block[100].astype(np.float64) / np.linalg.norm(block[100].astype(np.float64))
    noise = random.uniform(-1, 1, 300) * size * 2.0**-24
    nearest = module._Nearest(asked, 7)
    nearest.look_at(block, 0, (block.astype(np.float64) @ asked + noise).astype(np.float32))
    exactly = (block * asked).sum(axis=1).clip(-1, 1)
    assert nearest.numbers.tolist() == np.argsort(-exactly, kind="stable")[:7].tolist()

"""A stream of rows: in order, whole, and the same however it is cut into batches and processes."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from birder.data.fitting import Pixels
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, ModelFileError
from birder.inference import ready
from birder.inference.backends.base import Backend, Outputs, Pending
from birder.inference.classification import infer_image
from birder.inference.options import Options
from birder.inference.predictor import Predictor
from birder.inference.rows import Row
from birder.model_file import ModelInfo, save_model
from birder.networks import Network, create_network
from tests.inference.backends.at_once import AtOnce

BAD = {1: "truncated", 4: "not_an_image", 6: "missing"}
PLAIN = {"backend": "torch", "precision": "fp32"}


@pytest.fixture
def model(network: Network, info: ModelInfo, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, network, class_to_idx=info.class_to_idx, rgb_stats=info.rgb_stats)
    return path


def rows_of(model: Path, paths: list[Path], **options: object) -> list[Row]:
    with Predictor(model, Options(**{**PLAIN, "workers": 0, **options})) as predictor:
        return list(predictor.stream(paths))


@pytest.mark.parametrize("tta", [False, True])
def test_rows_are_those_of_single_pictures_in_order(
    model: Path, network: Network, info: ModelInfo, photos: list[Path], tta: bool
) -> None:
    rows = rows_of(model, photos, top=3, tta=tta)
    assert [row.path for row in rows] == list(map(str, photos))
    transform = classification_transform((32, 32), info.rgb_stats)
    names = list(info.class_to_idx)
    for index, row in enumerate(rows):
        if index in BAD:
            assert (row.status, row.code, row.labels) == ("error", BAD[index], ())
            continue
        probabilities = infer_image(network, photos[index], transform, tta=tta)[0][0]
        order = np.argsort(-probabilities)[:3]
        assert row.status == "ok" and row.labels == tuple(names[label] for label in order)
        assert np.abs(np.array(row.scores) - probabilities[order]).max() < 1e-6
    assert len({row.labels for row in rows if row.labels}) > 1


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_to_the_last_bit_for_any_batches_workers_and_order(
    model: Path, photos: list[Path], batch_size: int, workers: int
) -> None:
    order = np.random.default_rng(batch_size).permutation(21)
    many = photos * 3
    wanted = rows_of(model, photos)
    rows = rows_of(model, [many[index] for index in order], batch_size=batch_size, workers=workers)
    assert rows == [wanted[index % 7] for index in order]


def test_embeddings(model: Path, network: Network, info: ModelInfo, photos: list[Path]) -> None:
    with Predictor(model, Options(**PLAIN, workers=0), embeddings=True) as predictor:
        rows = list(predictor.stream(photos))
        assert predictor.names == [] and predictor.layout.embedding == network.embedding_size
    transform = classification_transform((32, 32), info.rgb_stats)
    for index, row in enumerate(rows):
        if index in BAD:
            assert row.embedding is None and row.status == "error"
            continue
        wanted = infer_image(network, photos[index], transform, return_embedding=True)[1]
        assert row.embedding is not None and wanted is not None
        assert np.abs(row.embedding - wanted[0]).max() < 1e-5 and row.labels == ()


def test_a_checklist_and_a_least_score(model: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Emu\nsnowy owl\n")
    everything = rows_of(model, photos, top="all")
    rows = rows_of(model, photos, classes=tmp_path / "list.txt", min_score=0.999)
    for row, whole in zip(rows, everything, strict=True):
        if row.status == "error":
            continue
        among_all = dict(zip(whole.labels, whole.scores, strict=True))
        assert row.status == ("unsure" if row.scores[0] < 0.999 else "ok")
        assert set(row.labels) == {"Emu", "Snowy Owl"}
        assert row.open_scores == tuple(among_all[label] for label in row.labels)
        listed = [among_all[label] for label in row.labels]
        assert np.abs(np.array(row.scores) - np.array(listed) / sum(listed)).max() < 1e-6
    assert {row.status for row in rows} == {"ok", "unsure", "error"}


def test_paths_are_taken_as_needed(model: Path, photos: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield str(photos[0])

    with Predictor(model, Options(**PLAIN, workers=1, batch_size=4)) as predictor:
        stream = predictor.stream(endless())
        first = list(islice(stream, 6))
        stream.close()  # type: ignore[attr-defined]
        assert [row.path for row in first] == [str(photos[0])] * 6
        assert taken < 300
        # It can be used again.
        assert [row.status for row in predictor.stream(photos[:2])] == ["ok", "error"]


def test_no_number_is_an_error_of_that_picture_alone(model: Path, photos: list[Path]) -> None:
    good = [photos[0], photos[2], photos[3]]
    with Predictor(model, Options(**PLAIN, workers=0, batch_size=3)) as predictor:
        wanted = list(predictor.stream(good))
        whole = predictor.chosen.backend

        class Broken(AtOnce):
            batch_size, name = 3, "broken"

            def answers(self, pixels: Pixels) -> Outputs:
                outputs = whole(pixels)
                assert outputs.logits is not None
                outputs.logits[1] = np.nan
                return outputs

        object.__setattr__(predictor.chosen, "backend", Broken())
        rows = list(predictor.stream(good))
    assert (rows[1].status, rows[1].code, rows[1].labels) == ("error", "not_finite", ())
    assert [rows[0], rows[2]] == [wanted[0], wanted[2]]


class Waiting(Backend):
    """Its answers come when a test sets them."""

    device, name = "cpu", "waiting"

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.parts: list[Future[list[Outputs]]] = []

    def begin(self, pixels: Pixels, *, five: bool = False) -> Pending:
        self.parts.append(Future())
        return Pending([self.parts[-1]])

    def answer(self, batch: int) -> None:
        logits = np.eye(5, dtype=np.float32)[[batch] * self.batch_size]
        self.parts[batch].set_result([Outputs(np.zeros((self.batch_size, 16), np.float32), logits)])


@pytest.fixture
def waiting(model: Path) -> Iterator[tuple[Predictor, Waiting]]:
    with Predictor(model, Options(**PLAIN, workers=0, top=1)) as predictor:
        backend = Waiting(2)
        object.__setattr__(predictor.chosen, "backend", backend)
        yield predictor, backend


def best(predictor: Predictor, rows: list[Row]) -> set[int]:
    return {predictor.names.index(row.labels[0]) for row in rows}


def after_the_first(waiting: tuple[Predictor, Waiting], photos: list[Path]) -> Generator[list[Row], None, None]:
    """Rows of nine batches, of which the first have been given."""
    predictor, backend = waiting
    stream = predictor.run([str(photos[0]), str(photos[2])] for _ in range(9))
    threading.Timer(0.2, backend.answer, [0]).start()
    assert best(predictor, next(stream)) == {0}
    return stream


def test_a_batch_is_begun_before_one_waits_for_the_last(waiting: tuple[Predictor, Waiting], photos: list[Path]) -> None:
    predictor, backend = waiting
    taken = 0

    def batches() -> Iterator[list[str]]:
        nonlocal taken
        for number in range(3):
            taken += 1
            yield [str(photos[0]), str(photos[2])]
            if number:  # the first is answered when the second has been begun
                backend.answer(number)

    stream = predictor.run(batches())
    threading.Timer(0.2, backend.answer, [0]).start()
    assert best(predictor, next(stream)) == {0} and taken == len(backend.parts) == 2
    assert [best(predictor, rows) for rows in stream] == [{1}, {2}]


def test_what_was_begun_is_cancelled_when_nobody_wants_it(
    waiting: tuple[Predictor, Waiting], photos: list[Path]
) -> None:
    _, backend = waiting
    after_the_first(waiting, photos).close()
    assert [part.cancelled() for part in backend.parts] == [False, True]


def test_an_error_of_a_batch_comes_after_the_rows_before_it_and_ends_the_others(
    waiting: tuple[Predictor, Waiting], photos: list[Path]
) -> None:
    _, backend = waiting
    stream = after_the_first(waiting, photos)
    backend.parts[1].set_exception(ConfigError("lower batch_size"))
    with pytest.raises(ConfigError, match="lower batch_size"):
        next(stream)
    assert len(backend.parts) == 3 and backend.parts[2].cancelled()


def test_models_that_name_no_species(tmp_path: Path, info: ModelInfo) -> None:
    tiny = {"size": (32, 32), "in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)}
    path = tmp_path / "none.safetensors"
    save_model(path, create_network("convnext_v2_atto", 0, **tiny), class_to_idx={}, rgb_stats=info.rgb_stats)
    with pytest.raises(ModelFileError, match="no classifier"):
        Predictor(path, Options(**PLAIN))
    Predictor(path, Options(**PLAIN), embeddings=True).close()
    grey = create_network("convnext_v2_atto", 5, input_channels=1, **tiny)
    save_model(path, grey, class_to_idx=info.class_to_idx, rgb_stats={"mean": (0.5,), "std": (0.5,)})
    with pytest.raises(ConfigError, match="3 channels, this network takes 1"):
        Predictor(path, Options(**PLAIN))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top": 0}, "top: must be 1 or more, or all, not 0"),
        ({"batch_size": 65}, "batch_size: must be from 1 to 64"),
        ({"workers": -1}, "workers: must be 0 or more"),
        ({"threads": -1}, "threads: must be 0 or more"),
        ({"timeout": 0.0}, "timeout: must be more than 0"),
        ({"min_score": 1.5}, "min_score: must be from 0 to 1"),
        ({"truncated": "perhaps"}, "truncated: must be skip or read"),
    ],
)
def test_numbers_that_make_no_sense(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Options(**options)


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 2), (64, 32)])
def test_as_many_processes_read_as_there_are_cores(cores: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "available_cores", lambda: cores)
    assert ready.reading_processes(Options()) == processes
    assert [ready.reading_processes(Options(workers=workers)) for workers in (0, 40)] == [0, 40]


def test_a_cut_off_picture_can_be_read_as_far_as_it_goes(model: Path, photos: list[Path], tmp_path: Path) -> None:
    Image.open(photos[3]).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-400])
    assert [row.code for row in rows_of(model, [tmp_path / "cut.jpg"])] == ["truncated"]
    (row,) = rows_of(model, [tmp_path / "cut.jpg"], truncated="read")
    assert (row.status, row.code) == ("ok", "truncated") and row.labels

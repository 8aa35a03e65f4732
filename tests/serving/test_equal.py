"""What a server says is what ``birder predict`` writes for the same files: to the last letter of its table.

Whether they are sent one by one, all together, or by many at a time; and the same for ``birder embed``.
"""

import csv
import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from birder.data.drawn.birds import DrawnBirds
from birder.data.folders import find_images
from birder.data.images import read_image
from birder.errors import ImageError
from birder.inference.job import Job
from birder.inference.options import Options
from birder.inference.results.layout import Layout
from birder.inference.rows import Row
from tests.serving import hostile
from tests.serving.live import Live

Rows = list[dict[str, Any]]
Table = dict[str, list[str]]
MODEL = "starter"
PLAIN = {"backend": "torch", "precision": "fp32", "threads": 1, "workers": 1}
ORIENTATION, TAKEN = 0x0112, 0x9003


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Drawn birds of all kinds and modes, and what cannot be read."""
    folder = tmp_path_factory.mktemp("files")
    birds = DrawnBirds(size=(150, 200), species=12)
    drawn = [birds.draw(label, 0).image for label in range(12)]
    for number, picture in enumerate(drawn[:4]):
        picture.save(folder / f"bird {number}.jpg")
    drawn[4].resize((1700, 1300)).save(folder / "large.jpg")  # decoded at a reduced scale
    drawn[4].resize((40, 30)).save(folder / "small.jpg", progressive=True)
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        grey = Image.fromarray(np.asarray(drawn[5].convert("L")).astype(np.uint16) * 257)
        (grey if mode == "I;16" else drawn[5].convert(mode)).save(folder / f"mode {mode.replace(';', '')}.png")
    drawn[6].convert("CMYK").save(folder / "cmyk.jpg")
    for suffix in ("webp", "gif", "tif", "bmp"):
        drawn[7].save(folder / f"kind.{suffix}")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        exif.get_ifd(0x8769)[TAKEN] = f"2026:05:17 06:12:4{orientation}"
        drawn[8].save(folder / f"turned {orientation}.jpg", exif=exif)
    whole = (folder / "bird 0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[:2000])
    (folder / "begun.jpg").write_bytes(whole[:300])
    (folder / "cut.png").write_bytes((folder / "mode L.png").read_bytes()[:3000])
    (folder / "middle.jpg").write_bytes(whole[:1500] + bytes(500) + whole[2000:])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.jpg").touch()
    (folder / "bomb.png").write_bytes(hostile.black_png(30_000, 20_000))
    (folder / "wörd, «鳥» 🐦 'n' so;on.jpg").write_bytes(whole)
    return sorted(folder.iterdir())


def predicted(files: Sequence[Path], folder: Path, **options: Any) -> tuple[Layout, Table]:
    """The table of ``birder predict``, by the names of files."""
    output = folder / "results.csv"
    chosen = Options(**{**PLAIN, **options})
    Job(model=MODEL, paths=tuple(files), output=output, options=chosen).run(restart=True)
    with open(output, newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    assert len(lines) == len(files)
    return Layout.of(head), {Path(path).name: [Path(path).name, *rest] for path, *rest in lines}


@pytest.fixture(scope="module")
def table(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Table]:
    layout, found = predicted(files, tmp_path_factory.mktemp("table"))
    statuses = [cells[1] for cells in found.values()]
    assert statuses.count("error") == 6, "good and bad ones"
    assert layout.novelty and any(cells[-1] for cells in found.values()), "what there is to compare"
    return layout, found


def cells_of(rows: Rows, layout: Layout) -> list[list[str]]:
    """What a table would have of the rows of a server."""
    return [
        layout.cells(
            Row(
                path=row["name"],
                status=row["status"],
                reason=row["reason"],
                labels=tuple(answer["label"] for answer in row["answers"]),
                scores=tuple(answer["score"] for answer in row["answers"]),
                open_scores=tuple(answer["open_score"] for answer in row["answers"] if layout.open_scores),
                novelty=row["novelty"],
                taken=row["taken"],
            )
        )
        for row in rows
    ]


def contents(files: Sequence[Path]) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in files]


def size_of(path: Path) -> tuple[int, int]:
    try:
        return read_image(path).size
    except ImageError:
        return (0, 0)


def test_one_by_one(server: Live, files: list[Path], table: tuple[Layout, Table]) -> None:
    layout, expected = table
    for name, content in contents(files):
        if content:  # a request without a body is no picture
            rows = server.predict(content, name, min_score=0).rows()
            assert cells_of(rows, layout) == [expected[name]]
            assert rows[0]["code"] == rows[0]["reason"].partition(":")[0]


def test_all_together(server: Live, files: list[Path], table: tuple[Layout, Table]) -> None:
    layout, expected = table
    rows = server.predict_all(contents(files), min_score=0).rows()
    assert cells_of(rows, layout) == [expected[path.name] for path in files]
    assert [(row["width"], row["height"]) for row in rows] == [size_of(path) for path in files]
    assert all((row["answers"] == []) == (row["status"] == "error") for row in rows)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_sixteen_at_once(rounds: int, server: Live, files: list[Path], table: tuple[Layout, Table]) -> None:
    """Each with the files in an order of its own, one by one or some together."""
    layout, expected = table
    sent = [pair for pair in contents(files) if pair[1]]

    def ask(seed: int) -> list[tuple[list[list[str]], list[list[str]]]]:
        chance, found = random.Random(seed), []
        mine = chance.sample(sent, len(sent))
        while mine:
            some = [mine.pop() for _ in range(min(len(mine), chance.randint(1, 7)))]
            answer = (
                server.predict(some[0][1], some[0][0], min_score=0)
                if len(some) == 1
                else server.predict_all(some, min_score=0)
            )
            found.append((cells_of(answer.rows(), layout), [expected[name] for name, _ in some]))
        return found

    with ThreadPoolExecutor(16) as pool:
        pairs = list(itertools.chain.from_iterable(pool.map(ask, range(16 * rounds))))
    assert len(pairs) > 16 * rounds * len(sent) / 7
    assert all(ours == theirs for ours, theirs in pairs)


@pytest.mark.parametrize("top", [1, 7, "all"])
def test_more_and_fewer_answers(top: Any, server: Live, files: list[Path], tmp_path: Path) -> None:
    layout, expected = predicted(files[:12], tmp_path, top=top)
    rows = server.predict_all(contents(files[:12]), top=top, min_score=0).rows()
    assert cells_of(rows, layout) == [expected[path.name] for path in files[:12]]


def test_with_a_checklist(server: Live, files: list[Path], tmp_path: Path) -> None:
    species = server.get(f"/v1/models/{MODEL}").json()["species"]
    names = [species[number]["label"] for number in (3, 50, 97)]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(["# ours", *names, "Dodo"]), encoding="utf-8")
    layout, expected = predicted(files[:12], tmp_path, classes=listed)
    assert layout.open_scores
    in_a_field = server.predict_all(contents(files[:12]), ("checklist", listed.read_text()), min_score=0)
    in_the_query = server.predict_all(contents(files[:12]), species=[*names, "Dodo"], min_score=0)
    for answer in (in_a_field, in_the_query):
        assert cells_of(answer.rows(), layout) == [expected[path.name] for path in files[:12]]
        assert "Dodo" in answer.json()["notice"]
    without = server.predict_all(contents(files[1:2])).json()
    assert without["notice"] == "" and without["rows"][0]["answers"][0]["open_score"] is None


def test_those_that_are_unsure(server: Live, files: list[Path], tmp_path: Path) -> None:
    layout, expected = predicted(files, tmp_path, min_score=0.5)
    rows = server.predict_all(contents(files), min_score=0.5).rows()
    assert cells_of(rows, layout) == [expected[path.name] for path in files]
    assert {row["status"] for row in rows} >= {"ok", "unsure", "error"}


def test_embeddings(server: Live, files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "embedded.npy"
    Job(model=MODEL, paths=tuple(files), output=output, options=Options(**PLAIN), embeddings=True).run()
    numbers = np.load(output)
    with open(f"{output}.csv", newline="", encoding="utf-8") as file:
        table = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    rows = server.predict_all(contents(files), path="/v1/embed").rows()
    for path, row in zip(files, rows, strict=True):
        theirs = table[path.name]
        assert [row[key] for key in ("name", "status", "reason", "taken")] == [
            path.name,
            *map(theirs.get, ("status", "reason", "taken")),
        ]
        if theirs["row"]:
            ours = np.array(row["embedding"], np.float64)
            assert np.array_equal(ours.astype(np.float32), ours), "float32, and every bit of it"
            assert np.array_equal(ours, numbers[int(theirs["row"])])
        else:
            assert row["embedding"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("--backend", "torch", "--precision", "fp32"), ("--backend", "auto", "--precision", "auto")]
)
def test_photographs(words: tuple[str, ...], shared: Path, tmp_path: Path) -> None:
    """All hard files, and a hundred birds, by what computes fastest here, too, on all cores."""
    birds = sorted(find_images([shared / "birds" / "val"]))[::9][:100]
    hard = sorted(path for path in (shared / "hard_images").rglob("*") if path.is_file())
    options = {"backend": words[1], "precision": words[3], "threads": 0, "workers": 2}
    for files in (list(map(Path, birds)), hard):
        unique = {path.name: path for path in files}
        layout, expected = predicted(list(unique.values()), tmp_path, **options)
        with Live(MODEL, *words, "--threads", "0", "--workers", "2") as server, ThreadPoolExecutor(16) as pool:
            asked = pool.map(
                lambda pair: server.predict(pair[1], pair[0], min_score=0),
                contents([p for p in unique.values() if p.stat().st_size]),
            )
            for answer in asked:
                (row,) = answer.rows()
                assert cells_of([row], layout) == [expected[row["name"]]]
            together = server.predict_all(contents(list(unique.values())), min_score=0).rows()
            assert cells_of(together, layout) == [expected[name] for name in unique]

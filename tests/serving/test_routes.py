"""What each address says, with models in this process; how it bears bad and too many requests: test_abuse."""

import asyncio
import base64
import io
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from birder.data.images import read_image
from birder.data.transforms import classification_transform
from birder.explain import explain, overlay
from birder.hub import checksum
from birder.inference.job import Job
from birder.inference.options import Options, Work
from birder.inference.reading import Readers
from birder.inference.ready import Model
from birder.model_file import load_model, save_model
from birder.networks import create_network
from birder.serving.app import create_app
from birder.serving.metrics import Metrics
from birder.serving.models import Served
from birder.serving.settings import Limits, Settings
from birder.serving.similar import Similar
from birder.serving.species import read_names
from birder.signature import rgb_stats
from tests.serving.small import SPECIES, bird, small_model

PLAIN = {"backend": "torch", "precision": "fp32", "threads": 1, "workers": 0}
CARD = "---\nlicense: other\n---\n\n# Model Card for model\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its card, names in other languages, pictures and their index, and a network alone."""
    folder = tmp_path_factory.mktemp("served")
    small_model(folder)
    (folder / "model.md").write_text(CARD)
    (folder / "names.csv").write_text(
        "label,de,fr\nWren,Zaunkönig,Troglodyte\nMagpie,Elster,\nDodo,Dodo,Dodo\n", "utf-8"
    )
    for number in range(6):
        path = folder / "pictures" / f"folder {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bird(number))
    job = Job(
        model=str(folder / "model.safetensors"),
        paths=(folder / "pictures",),
        output=folder / "index.npy",
        options=Options(**PLAIN),
        embeddings=True,
    )
    job.run()
    network = create_network("convnext_v2_atto", 0, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    save_model(folder / "eyes.safetensors", network, class_to_idx={}, rgb_stats=rgb_stats("birder"))
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    with Readers(1) as readers:
        main, eyes = Model(place / "model.safetensors"), Model(place / "eyes.safetensors")
        similar = Similar.from_file(place / "index.npy", model_digest=main.digest, embedding_size=16)
        names, work = read_names(place / "names.csv", main.names), Work(**PLAIN)
        metrics = Metrics()
        watch = partial(metrics.batch, "model")
        models = [
            Served("model", main, main.ready(work), readers, similar=similar, names=names, watch=watch),
            Served("eyes", eyes, eyes.ready(work), readers),
        ]
        app = create_app(models, Settings(limits=Limits(max_files=8, queue=20)), metrics)
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:
            yield client


def sent(*contents: bytes, **fields: str) -> dict[str, Any]:
    """A form with pictures."""
    return {"files": [("files", (f"{i}.jpg", content)) for i, content in enumerate(contents)], "data": fields}


def test_the_models_are_listed(client: TestClient, place: Path) -> None:
    model, eyes = client.get("/v1/models").json()["models"]
    file = place / "model.safetensors"
    assert model == {
        "name": "model",
        "default": True,
        "network": "convnext_v2_atto",
        "size": [32, 32],
        "classes": 5,
        "embedding_size": 16,
        "parameters": sum(parameter.numel() for parameter in load_model(file)[0].parameters()),
        "bytes": file.stat().st_size,
        "sha256": checksum.compute(file),
        "backend": "torch fp32",
        "calibrated": False,
        "min_score": 0.0,
        "threshold": None,
        "novelty": False,
        "index": 6,
        "card": True,
    }
    assert (eyes["name"], eyes["default"], eyes["classes"], eyes["index"], eyes["card"]) == ("eyes", False, 0, 0, False)


def test_a_model_tells_what_it_can_name(client: TestClient) -> None:
    model = client.get("/v1/models/model").json()
    assert model["languages"] == ["de", "fr"]
    assert [species["label"] for species in model["species"]] == list(SPECIES)
    assert model["species"][0]["names"] == {"de": "Zaunkönig", "fr": "Troglodyte"}
    assert model["species"][2]["names"] == {"de": "Elster"}
    assert model["species"][4]["names"] == {}
    assert client.get("/v1/models/eyes").json()["species"] == []
    missing = client.get("/v1/models/dodo")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown-model")


def test_a_card_is_given_without_its_front_matter(client: TestClient) -> None:
    card = client.get("/v1/models/model/card")
    assert card.text == "# Model Card for model"
    assert card.headers["content-type"] == "text/markdown; charset=utf-8"
    assert client.get("/v1/models/eyes/card").json()["code"] == "not-found"


def test_a_picture_comes_raw_or_in_a_form(client: TestClient) -> None:
    raw = client.post("/v1/predict", params={"name": "a bird", "top": 2}, content=bird(1)).json()
    form = client.post("/v1/predict?top=2", **sent(bird(0), bird(1), b"no picture")).json()
    assert [row["name"] for row in form["rows"]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert raw["rows"][0]["answers"] == form["rows"][1]["answers"] != form["rows"][0]["answers"]
    assert raw["rows"][0]["name"] == "a bird"
    assert len(raw["rows"][0]["answers"]) == 2
    assert (raw["rows"][0]["width"], raw["rows"][0]["height"]) == (64, 64)
    bad = form["rows"][2]
    assert (bad["status"], bad["code"], bad["answers"], bad["width"]) == ("error", "not_an_image", [], 0)
    everything = client.post("/v1/predict?top=all", content=bird(1)).json()["rows"][0]["answers"]
    assert sorted(answer["label"] for answer in everything) == sorted(SPECIES)
    assert sum(answer["score"] for answer in everything) == pytest.approx(1)


def test_a_checklist_restricts_the_answers(client: TestClient) -> None:
    (plain,) = client.post("/v1/predict?top=all", content=bird(2)).json()["rows"]
    scores = {answer["label"]: answer["score"] for answer in plain["answers"]}
    asked = client.post("/v1/predict?species=emu&species=Dodo", **sent(bird(2), checklist="wren\n\n")).json()
    listed = {answer["label"]: answer for answer in asked["rows"][0]["answers"]}
    assert set(listed) == {"Wren", "Emu"}
    both = scores["Wren"] + scores["Emu"]
    for label, answer in listed.items():
        assert answer["open_score"] == pytest.approx(scores[label], rel=1e-6)
        assert answer["score"] == pytest.approx(scores[label] / both, rel=1e-6)
    assert "Dodo" in asked["notice"]
    noted = "\ufeffWren\n# the garden\nEmu # in winter"  # as in a file for birder predict
    again = client.post("/v1/predict", **sent(bird(2), checklist=noted)).json()
    assert again["rows"][0]["answers"] == asked["rows"][0]["answers"]
    nothing = client.post("/v1/predict", **sent(bird(2), checklist="# nothing"))
    assert (nothing.status_code, nothing.json()["code"]) == (422, "invalid")
    refused = client.post("/v1/predict?species=Dodo", content=bird(2))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_the_least_score_is_that_of_the_request(client: TestClient) -> None:
    for least, status in ((0, "ok"), (1, "unsure")):
        (row,) = client.post("/v1/predict", params={"min_score": least}, content=bird(0)).json()["rows"]
        assert row["status"] == status


def test_similar_pictures_are_found_and_shown(client: TestClient, place: Path) -> None:
    (row,) = client.post("/v1/predict?similar=3", content=bird(4)).json()["rows"]
    best, *others = row["similar"]
    assert len(others) == 2
    assert (best["name"], best["label"]) == ("4.jpg", "folder 0")
    assert best["similarity"] == pytest.approx(1, abs=1e-6)
    assert all(other["similarity"] < best["similarity"] for other in others)
    picture = client.get(f"/v1/models/model/pictures/{best['picture']}")
    assert picture.headers["content-type"] == "image/jpeg"
    thumbnail = np.asarray(Image.open(io.BytesIO(picture.content)), np.float64)
    drawn = np.asarray(read_image(place / "pictures" / "folder 0" / "4.jpg").resize((240, 240)), np.float64)
    assert thumbnail.shape == (240, 240, 3)
    assert np.abs(thumbnail - drawn).mean() < 4
    for number in (-1, 6, 10**30):
        assert client.get(f"/v1/models/model/pictures/{number}").json()["code"] == "not-found"
    assert client.get("/v1/models/eyes/pictures/0").json()["code"] == "not-found"
    assert client.post("/v1/predict", content=bird(4)).json()["rows"][0]["similar"] == []


def test_embeddings_are_those_of_the_network(client: TestClient, place: Path) -> None:
    for name in ("model", "eyes"):
        network, info = load_model(place / f"{name}.safetensors")
        image = classification_transform(network.size, info.rgb_stats)(read_image(bird(3)))
        with torch.inference_mode():
            expected = network.embedding(image[None])[0].numpy()
        (row, bad) = client.post("/v1/embed", params={"model": name}, **sent(bird(3), b"")).json()["rows"]
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-4, atol=1e-5)
        assert (bad["status"], bad["code"], bad["embedding"]) == ("error", "empty", None)
    refused = client.post("/v1/predict?model=eyes", content=bird(3))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


@pytest.mark.parametrize("label", ["", "Emu"])
def test_an_explanation_is_that_of_the_library(client: TestClient, place: Path, label: str) -> None:
    answer = client.post("/v1/explain", params={"label": label, "name": "x"}, content=bird(5)).json()
    network, info = load_model(place / "model.safetensors")
    image = classification_transform(network.size, info.rgb_stats)(read_image(bird(5)))
    expected = explain(network, image, label=SPECIES.index(label) if label else None)
    assert (answer["label"], answer["method"], answer["name"]) == (SPECIES[expected.label], expected.method, "x")
    heat = np.frombuffer(base64.b64decode(answer["heat"]["values"]), np.uint8)
    assert (answer["heat"]["height"], answer["heat"]["width"]) == (32, 32)
    np.testing.assert_allclose(heat.reshape(32, 32) / 255, expected.heat, atol=0.003)
    answers = client.post("/v1/predict?top=all", content=bird(5)).json()["rows"][0]["answers"]
    assert {"label": answer["label"], "score": answer["score"], "open_score": None} in answers


def test_an_explanation_can_be_drawn(client: TestClient) -> None:
    file = io.BytesIO()
    wide = read_image(bird(5)).resize((1600, 400))
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(file, "JPEG", exif=turned)
    drawn = client.post("/v1/explain", headers={"Accept": "image/png"}, content=file.getvalue())
    assert drawn.headers["content-type"] == "image/png"
    picture = read_image(drawn.content)
    assert picture.size == (160, 640)
    heat = client.post("/v1/explain", content=file.getvalue()).json()["heat"]
    values = np.frombuffer(base64.b64decode(heat["values"]), np.uint8).reshape(32, 32) / np.float32(255)
    expected = overlay(read_image(file.getvalue()).resize((160, 640)), values)
    assert np.abs(np.asarray(picture, np.float64) - np.asarray(expected)).mean() < 5


def test_what_cannot_be_explained(client: TestClient) -> None:
    for asked, status, code in (
        (client.post("/v1/explain", content=b"no picture"), 422, "picture"),
        (client.post("/v1/explain?label=Dodo", content=bird(0)), 422, "invalid"),
        (client.post("/v1/explain?method=rollout", content=bird(0)), 422, "invalid"),
        (client.post("/v1/explain?method=guess", content=bird(0)), 422, "invalid"),
        (client.post("/v1/explain?model=eyes", content=bird(0)), 422, "invalid"),
        (client.post("/v1/explain", **sent(bird(0), bird(1))), 400, "bad-request"),
    ):
        assert (asked.status_code, asked.json()["code"]) == (status, code)
    assert "did you mean" in client.post("/v1/explain?label=Magpies", content=bird(0)).json()["detail"]


def test_a_request_that_asks_for_too_much_is_told_so(client: TestClient) -> None:
    refused = client.post("/v1/predict", **sent(*[b"x"] * 9))
    assert (refused.status_code, refused.json()["code"]) == (413, "too-large")
    refused = client.post("/v1/predict", files=[("f", ("a", b"x"))], data={"color": "red"})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad-request")
    refused = client.post("/v1/predict", data={"checklist": "Wren"}, files={"f": (None, b"no file name")})
    assert refused.json()["code"] == "bad-request"


def test_the_counters_count(client: TestClient) -> None:
    def value(line: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return next((float(text.split()[-1]) for text in lines if text.startswith(line)), 0.0)

    names = (
        'birder_pictures_total{model="model",status="ok"}',
        'birder_pictures_total{model="model",status="error"}',
        'birder_requests_total{path="/v1/predict",status="200"}',
        'birder_batch_pictures_sum{model="model"}',
    )
    before = [value(name) for name in names]
    client.post("/v1/predict", **sent(bird(0), bird(1), b"no picture"))
    assert [value(name) for name in names] == [before[0] + 2, before[1] + 1, before[2] + 1, before[3] + 2]
    assert value("birder_pictures_under_way") == value("birder_held_bytes") == 0
    client.get("/some/where")
    assert value('birder_requests_total{path="other",status="404"}') >= 1


def test_the_files_of_a_model_are_not_needed_while_it_is_served(place: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.md"):
        shutil.copy(place / name, tmp_path)
    model = Model(tmp_path / "model.safetensors")
    with Readers(1) as readers:
        served = Served("model", model, model.ready(Work(**PLAIN)), readers)
        with TestClient(create_app([served], Settings()), base_url="http://localhost") as client:
            before = client.get("/v1/models/model").json()
            for name in ("model.safetensors", "model.md"):
                (tmp_path / name).unlink()
                (tmp_path / name).write_bytes(b"another")
            assert client.get("/v1/models/model").json() == before
            assert client.get("/v1/models/model/card").text == "# Model Card for model"
            assert client.post("/v1/explain", content=bird(0)).status_code == 200


def test_nor_is_the_file_of_a_model_that_was_known_before_it_was_served(place: Path, tmp_path: Path) -> None:
    """Where OpenVINO computes, nothing but explanations needs the network."""
    pytest.importorskip("openvino")
    shutil.copy(place / "model.safetensors", tmp_path)
    work = Work(backend="openvino", device="cpu", threads=1)
    Model(tmp_path / "model.safetensors").ready(work)
    model = Model(tmp_path / "model.safetensors")
    with Readers(1) as readers:
        ready = model.ready(work)
        assert ready.chosen.remembered
        served = Served("model", model, ready, readers)
        with TestClient(create_app([served], Settings()), base_url="http://localhost") as client:
            (tmp_path / "model.safetensors").unlink()
            assert client.post("/v1/explain", content=bird(0)).status_code == 200


def test_large_checklists_are_not_kept(client: TestClient, place: Path) -> None:
    model = Model(place / "model.safetensors")
    with Readers(1) as readers:
        served = Served("model", model, model.ready(Work(**PLAIN)), readers)
        asyncio.run(served.checklist(["Wren", "Emu"]))
        assert served._checklist.cache_info().currsize == 1
        asyncio.run(served.checklist(["Wren", *(f"{number:0300}" for number in range(2000))]))
        assert served._checklist.cache_info().currsize == 1
        served.close()


def test_signs_of_life(client: TestClient) -> None:
    assert client.head("/healthz").status_code == client.head("/readyz").status_code == 200
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_server_that_cannot_read_is_not_ready(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(place / "model.safetensors")
    ready = model.ready(Work(**PLAIN))
    monkeypatch.setattr("birder.inference.reading._STARTS", 1)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with Readers(1) as readers:
        app = create_app([Served("model", model, ready, readers)], Settings())
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            until = time.monotonic() + 10
            while (answer := client.get("/readyz")).status_code == 200 and time.monotonic() < until:
                time.sleep(0.01)
            assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
            assert client.post("/v1/predict", content=bird(0)).json()["code"] == "internal"


def test_the_page_comes_whole_and_may_ask_only_here(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").status_code == 200
    for name in ("../app.py", "..%2fapp.py", "nothing.js", ""):
        assert client.get(f"/page/{name}").status_code == 404

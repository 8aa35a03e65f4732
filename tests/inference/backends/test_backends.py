"""All backends give the answers of the network, each picture by itself, and leave the network as it was."""

import copy
import gc
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from birder.data.fitting import Pixels, normalized
from birder.device import computes_bfloat16
from birder.errors import ConfigError, MissingPackage, UnknownName
from birder.inference import classification
from birder.inference.backends import table
from birder.inference.backends.base import Backend, Outputs
from birder.inference.backends.one_by_one import OneByOne
from birder.inference.backends.table import WAYS, Way, available, create, names
from birder.inference.backends.together import Together, padded
from birder.inference.classification import infer_batch
from birder.inference.rows import Floats
from birder.networks import Network, create_network

from .conftest import MOST, STATS, Build

TORCH = Way("torch", "fp32")
OPENVINO = Way("openvino", "fp32")
LARGEST = {"fp32": 1e-4, "bf16": 0.1}
"""Differences from the network, relative to the spread of its answers."""
EVERY = [
    pytest.param(way, family, marks=() if way.name == "torch" or quick else pytest.mark.slow, id=f"{way}-{family}")
    for way in WAYS
    if way.name != "cuda" and way.precision != "int8"
    for family, quick in [
        ("convnext_v2_atto", way.name == "openvino"),
        ("pvt_v2_b0", False),
        ("regnet_y_200m", False),
        ("vit_t16", False),
        ("vit_parallel_s16_18x2_ls_avg", False),
    ]
]


@pytest.fixture(autouse=True)
def possible(request: pytest.FixtureRequest) -> None:
    """Leave out what this machine cannot do."""
    way = request.node.callspec.params.get("way") if hasattr(request.node, "callspec") else None
    if isinstance(way, Way) and (hindrance := available("cpu")[way]):
        pytest.skip(hindrance)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converting takes seconds, so what belongs to the same network is done once."""
    return tmp_path_factory.mktemp("converted")


def made(way: Way, network: Network | Callable[[], Network], **options: Any) -> Backend:
    load = (lambda: network) if isinstance(network, Network) else network
    return create(way, load, STATS, **{"batch_size": MOST, "threads": 2, **options})


def difference(given: Any, expected: Any) -> float:
    return float(np.abs(given - expected).max() / expected.std())


def expect_same(given: Outputs, expected: Outputs) -> None:
    assert given.embeddings.dtype == np.float32
    np.testing.assert_array_equal(given.embeddings, expected.embeddings)
    assert given.logits is not None and expected.logits is not None
    np.testing.assert_array_equal(given.logits, expected.logits)


def rows(outputs: Outputs, which: Any) -> Outputs:
    assert outputs.logits is not None
    return Outputs(outputs.embeddings[which], outputs.logits[which])


@pytest.mark.parametrize(("way", "family"), EVERY)
def test_answers_are_those_of_the_network_and_of_each_picture_alone(
    way: Way, family: str, build: Build, pictures: Pixels, images: Tensor, folder: Path
) -> None:
    network = build(family)
    logits, embeddings = infer_batch(network, images, return_embedding=True, return_logits=True)
    backend = made(way, network, folder=folder / family)
    assert (backend.name, backend.device, backend.batch_size) == (str(way), "cpu", MOST)
    outputs = backend(pictures)
    assert difference(outputs.embeddings, embeddings) < LARGEST[way.precision]
    assert difference(outputs.logits, logits) < LARGEST[way.precision]
    kept = copy.deepcopy(outputs)
    for seed in range(4):
        order = torch.randperm(MOST, generator=torch.Generator().manual_seed(seed))
        for count in range(1, MOST + 1):
            expect_same(backend(pictures[order[:count].numpy()]), rows(kept, order[:count].numpy()))
    expect_same(outputs, kept)  # what was given out earlier is not written to


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [OPENVINO, Way("openvino", "int8"), Way("compiled", "fp32"), Way("onnx", "fp32")], ids=str
)
def test_without_classes_there_are_embeddings_only(way: Way, build: Build, pictures: Pixels, images: Tensor) -> None:
    network = build(classes=0)
    outputs = made(way, network, pictures=pictures)(pictures)
    _, expected = infer_batch(network, images, return_embedding=True)
    assert outputs.logits is None
    assert difference(outputs.embeddings, expected) < (1 if way.precision == "int8" else 1e-4)


def test_torch_without_classes_gives_embeddings_only(build: Build, pictures: Pixels, images: Tensor) -> None:
    network = build(classes=0)
    outputs = made(TORCH, network)(pictures)
    assert outputs.logits is None
    np.testing.assert_allclose(
        outputs.embeddings, infer_batch(network, images, return_logits=True)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("way", [Way("torch", "fp32"), Way("torch", "bf16"), OPENVINO], ids=str)
def test_the_network_stays_as_it_was(way: Way, build: Build, pictures: Pixels) -> None:
    network = build().train()
    network.body.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    weights = [(id(weight), weight.data_ptr(), weight.requires_grad, weight.dtype) for weight in network.parameters()]
    threads = torch.get_num_threads()
    made(way, network)(pictures)
    assert [module.training for module in network.modules()] == modes
    assert [
        (id(weight), weight.data_ptr(), weight.requires_grad, weight.dtype) for weight in network.parameters()
    ] == weights
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.get_num_threads() == threads
    asked = ThreadPoolExecutor(1).submit(torch.get_num_threads)
    assert asked.result() == threads  # nor do threads that others start


def test_torch_takes_the_memory_of_the_weights(build: Build, pictures: Pixels) -> None:
    network = build()
    backend = made(TORCH, network)
    before = backend(pictures)
    with torch.no_grad():
        network.classifier.bias.add_(1)
    after = backend(pictures)
    assert after.logits is not None and before.logits is not None
    np.testing.assert_allclose(after.logits, before.logits + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", [TORCH, OPENVINO], ids=str)
def test_the_number_of_threads_changes_nothing_and_several_may_call(
    way: Way, build: Build, pictures: Pixels, folder: Path
) -> None:
    options = {"folder": folder / "convnext_v2_atto"}
    first, second = made(way, build, threads=1, **options), made(way, build, threads=3, **options)
    expected = first(pictures)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(backend, pictures) for _ in range(4) for backend in (first, second)]
        for job in jobs:
            expect_same(job.result(), expected)


def test_torch_computes_each_picture_with_one_thread_however_many_the_process_has(
    build: Build, pictures: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen, threads = build(), set(), torch.get_num_threads()
    embed = network.embedding

    def embedding(x: Tensor) -> Tensor:
        seen.add(torch.get_num_threads())
        return embed(x)

    monkeypatch.setattr(network, "embedding", embedding)
    torch.set_num_threads(3)
    try:
        made(TORCH, network)(pictures)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert seen == {1}


@pytest.mark.slow
def test_more_networks_can_be_compiled_than_torch_compiles_the_same_code(pictures: Pixels) -> None:
    tiny = {"size": (64, 64), "in_channels": (8, 8, 8, 8), "num_layers": (1, 1, 1, 1)}
    for _ in range(10):
        network = create_network("convnext_v2_atto", 3, **tiny).eval()
        expected = made(TORCH, network)(pictures).embeddings
        assert difference(made(Way("compiled", "fp32"), network)(pictures).embeddings, expected) < 1e-4


def test_batches_are_computed_in_turn_and_of_cancelled_ones_nothing_more(pictures: Pixels) -> None:
    seen, go = [], threading.Semaphore(0)

    def compute(image: Floats) -> Outputs:
        go.acquire()
        seen.append(float(image.mean()))
        return Outputs(image.mean(axis=(2, 3)))

    backend = OneByOne("one", compute, shape=(MOST, 3, 64, 64), stats=STATS, threads=1)
    first, second, third = (backend.begin(part) for part in (pictures[:2], pictures[2:4], pictures[3:]))
    second.cancel()
    for _ in range(MOST):
        go.release()
    (answer,) = first.result()
    assert answer.logits is None and len(answer.embeddings) == 2
    assert np.array_equal(third.result()[0].embeddings, normalized(pictures[3:], STATS).mean(axis=(2, 3)))
    assert seen == [float(normalized(picture, STATS).mean()) for picture in pictures[[0, 1, 3, 4], None]]
    with pytest.raises(CancelledError):
        second.result()


def test_after_an_error_the_rest_of_the_batch_is_not_computed(pictures: Pixels) -> None:
    seen, broken = [], threading.Event()

    def compute(image: Floats) -> Outputs:
        seen.append(image)
        if len(seen) == 1:
            raise ConfigError("no")
        broken.wait(10)
        return Outputs(image.mean(axis=(2, 3)))

    backend = OneByOne("one", compute, shape=(MOST, 3, 64, 64), stats=STATS, threads=1)
    with pytest.raises(ConfigError, match="no"):
        backend(pictures)
    broken.set()
    backend.begin(pictures[:1]).result()
    assert len(seen) <= 3  # the one that failed, one that may have been begun, and the last


def test_a_backend_that_is_gone_leaves_no_threads(build: Build) -> None:
    backend = made(TORCH, build())
    assert sum(thread.name.startswith("torch fp32") for thread in threading.enumerate()) == 2
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("torch fp32")]
    del backend
    gc.collect()
    for worker in workers:
        worker.join(timeout=10)
        assert not worker.is_alive()


def test_pictures_in_another_form_are_refused(build: Build, pictures: Pixels) -> None:
    backend = made(TORCH, build())
    for wrong in (
        pictures[:0],
        pictures[0],
        pictures.repeat(2, axis=0),
        pictures[..., 1:],
        pictures.astype(np.float32),
    ):
        with pytest.raises(ConfigError, match=r"takes uint8 pictures of \(64, 64, 3\), 1 to 5 at once, not "):
            backend(wrong)  # type: ignore[arg-type]


def test_batches_are_filled_with_the_last_picture(images: Tensor) -> None:
    filled = padded(images[:2], MOST)
    assert torch.equal(filled, images[[0, 1, 1, 1, 1]])
    assert padded(images, MOST) is images


@pytest.mark.parametrize("way", [TORCH, OPENVINO], ids=str)
def test_five_parts_are_those_of_infer_batch(way: Way, build: Build, pictures: Pixels, images: Tensor) -> None:
    network = build()
    found = made(way, network).begin(pictures, five=True).result()
    assert len(found) == 5
    logits, embeddings = infer_batch(network, images, return_embedding=True, tta=True, return_logits=True)
    together = [view.logits for view in found if view.logits is not None]
    assert difference(np.mean(together, axis=0), logits) < 1e-4
    assert difference(np.mean([view.embeddings for view in found], axis=0), embeddings) < 1e-4
    assert difference(found[0].embeddings, found[1].embeddings) > 1e-3


def test_five_parts_are_cut_by_who_asks(build: Build, pictures: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would start threads of its own in each of those that compute."""
    threads = []

    def cut(images: Tensor) -> list[Tensor]:
        threads.append(threading.current_thread())
        return [images] * 5

    monkeypatch.setattr(classification, "five_crops", cut)
    backend = made(OPENVINO, build())
    whole = backend(pictures)
    for view in backend.begin(pictures, five=True).result():
        expect_same(view, whole)
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("failing", [0, 1])
def test_threads_that_cannot_begin_are_an_error_and_none_is_left(failing: int) -> None:
    number = itertools.count()

    def begin() -> None:
        if next(number) == failing:
            raise RuntimeError("no more threads")

    before = threading.active_count()
    with pytest.raises((RuntimeError, threading.BrokenBarrierError)):
        OneByOne("x", lambda images: rows(images, 0), shape=(1, 3, 8, 8), stats=STATS, threads=3, begin=begin)
    end = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_converted_network_is_read_where_nothing_can_be_written(
    build: Build, pictures: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network() -> NoReturn:
        raise AssertionError("the network is not needed")

    expected = made(OPENVINO, build, folder=tmp_path / "kept")(pictures)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    expect_same(made(OPENVINO, no_network, folder=tmp_path / "kept")(pictures), expected)
    expect_same(made(OPENVINO, build, folder=tmp_path / "other")(pictures), expected)
    assert not (tmp_path / "other").exists()


def test_what_is_computed_together_is_filled_up_and_never_asked_twice_at_once(
    build: Build, pictures: Pixels, images: Tensor
) -> None:
    network, sizes, at_once = build().eval(), set(), threading.Semaphore(1)

    def compute(batch: Tensor) -> Outputs:
        assert at_once.acquire(blocking=False)
        sizes.add(len(batch))
        logits, embeddings = infer_batch(network, batch, return_embedding=True, return_logits=True)
        at_once.release()
        assert embeddings is not None
        return Outputs(embeddings, logits)

    together = Together("gpu", compute, shape=(MOST, 3, 64, 64), stats=STATS, device=torch.device("cpu"))
    logits, _ = infer_batch(network, images, return_logits=True)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(together, [pictures[:2]] * 8))
    assert all(len(answer.embeddings) == 2 and difference(answer.logits, logits[:2]) < 1e-5 for answer in answers)
    assert sizes == {MOST}
    assert [len(view.embeddings) for view in together.begin(pictures[:3], five=True).result()] == [3] * 5


def test_a_batch_too_large_for_the_memory_is_said(pictures: Pixels) -> None:
    def compute(batch: Tensor) -> Outputs:
        raise torch.OutOfMemoryError("CUDA out of memory")

    together = Together("gpu", compute, shape=(MOST, 3, 64, 64), stats=STATS, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="a batch of 5 does not fit into the memory of cpu: lower batch_size"):
        together(pictures)


def test_a_converted_network_is_kept_and_needs_no_network(build: Build, pictures: Pixels, tmp_path: Path) -> None:
    def no_network() -> NoReturn:
        raise AssertionError("the network is not needed")

    folder = tmp_path / "kept"
    expected = made(OPENVINO, build)(pictures)
    expect_same(made(OPENVINO, build, folder=folder)(pictures), expected)
    (kept,) = folder.iterdir()
    expect_same(made(OPENVINO, no_network, folder=folder)(pictures), expected)
    graph = kept / "graph.bin"
    graph.write_bytes(graph.read_bytes()[:100])
    expect_same(made(OPENVINO, build, folder=folder)(pictures), expected)
    assert list(folder.iterdir()) == [kept]


@pytest.mark.slow
def test_int8_learns_from_pictures_and_comes_near(
    family: str, build: Build, pictures: Pixels, images: Tensor, tmp_path: Path
) -> None:
    network = build(family)
    way = Way("openvino", "int8")
    logits, _ = infer_batch(network, images, return_logits=True)
    with pytest.raises(ConfigError, match="give some"):
        made(way, network)
    backend = made(way, network, pictures=pictures, folder=tmp_path)
    outputs = backend(pictures)
    assert 1e-3 < difference(outputs.logits, logits) < 1.5  # it is rough, and random weights make it worse
    assert outputs.logits is not None
    expect_same(backend(pictures[[3, 1]]), rows(outputs, [3, 1]))
    expect_same(made(way, build, folder=tmp_path)(pictures), outputs)


@pytest.mark.parametrize(
    "way",
    [
        OPENVINO,
        pytest.param(Way("compiled", "fp32"), marks=pytest.mark.slow),
        pytest.param(Way("onnx", "fp32"), marks=pytest.mark.slow),
    ],
)
def test_a_network_that_cannot_be_converted_is_refused_with_the_reason(
    way: Way, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build()

    def embedding(x: Tensor) -> Tensor:
        return torch.zeros(len(x), int(x.sum()) + 2)  # a shape that depends on the numbers

    monkeypatch.setattr(network, "embedding", embedding)
    with pytest.raises(ConfigError, match=r"cannot take this network: \w+: "):
        made(way, network)


def test_the_table_says_what_is_possible_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == ("cuda", "openvino", "compiled", "torch", "onnx")
    found = available("cpu")
    assert tuple(found) == WAYS
    assert found[TORCH] == ""
    assert found[Way("cuda", "bf16")] == "it needs an NVIDIA GPU"
    assert (found[Way("torch", "bf16")] == "") == computes_bfloat16("cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available("cpu")[Way("openvino", "int8")] == "openvino is not installed: pip install 'birder[int8]'"
    monkeypatch.setattr(table, "computes_bfloat16", lambda device: False)
    assert available("cpu")[Way("torch", "bf16")] == "cpu does not multiply in bfloat16"


def test_what_is_not_there_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build()
    with pytest.raises(UnknownName, match=r"'openvin'.*did you mean openvino"):
        made(Way("openvin", "fp32"), network)
    with pytest.raises(ConfigError, match=r"onnx does not compute in bf16; this machine has .*torch fp32"):
        made(Way("onnx", "bf16"), network)
    with pytest.raises(ConfigError, match="cuda fp32: it needs an NVIDIA GPU; this machine has "):
        made(Way("cuda", "fp32"), network)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more"):
        made(TORCH, network, batch_size=0)
    monkeypatch.setattr(table, "computes_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match="torch bf16: cpu does not multiply in bfloat16"):
        made(Way("torch", "bf16"), network)
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=r"needs openvino: pip install 'birder\[fast\]'"):
        made(OPENVINO, network)
    with pytest.raises(MissingPackage, match=r"needs onnxruntime: pip install 'birder\[onnx\]'"):
        made(Way("onnx", "fp32"), network)


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    script = (
        "import sys; from birder.inference.backends.openvino import _package; _package(); "
        "import openvino; openvino.convert_model; "
        "assert not [name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module]"
    )
    home = {"HOME": str(tmp_path), "PATH": "", "USERPROFILE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=home, timeout=120)
    assert not (tmp_path / "intel").exists()


def test_signals_are_survived_when_openvino_is_let_go_in_another_thread() -> None:
    script = """
import gc, signal, subprocess, threading
signal.signal(signal.SIGCHLD, lambda number, frame: None)
from birder.inference.backends.table import Way, create
from birder.networks import create_network
from birder.signature import rgb_stats
net = create_network("convnext_v2_atto", 3, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1)).eval()
kept = [create(Way("openvino", "fp32"), lambda: net, rgb_stats("birder"), batch_size=2)]
thread = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
thread.start()
thread.join()
for _ in range(3):
    subprocess.run(["true"], check=True)
"""
    subprocess.run([sys.executable, "-X", "faulthandler", "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_norms_over_channels_are_openvinos_own_whatever_the_shape(eps: float, build: Build, tmp_path: Path) -> None:
    import openvino

    network = build("convnext_v2_atto")
    for norm in network.modules():
        if isinstance(norm, torch.nn.LayerNorm):
            norm.eps = eps
    random = np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = made(TORCH, network)(random)
    assert difference(made(OPENVINO, network, folder=tmp_path)(random).embeddings, expected.embeddings) < 1e-4
    (graph,) = tmp_path.glob("*/graph.xml")
    norms = [node for node in openvino.Core().read_model(graph).get_ops() if node.get_type_name() == "MVN"]
    ranks = {len(norm.get_output_shape(0)) for norm in norms}
    assert len(norms) == sum(isinstance(norm, torch.nn.LayerNorm) for norm in network.modules()) and ranks == {3}


def test_the_first_inference_of_a_process_is_made_by_one_thread_alone(build: Build, tmp_path: Path) -> None:
    """OpenVINO makes tables at it: of two threads at once, one would now and then wait for the other for ever."""
    made(OPENVINO, build, folder=tmp_path)
    script = f"""
import sys, threading
import numpy as np, openvino
from pathlib import Path
from birder.inference.backends.table import Way, create
from birder.signature import rgb_stats

infer, threads = openvino.InferRequest.infer, []
def noted(*args, **options):
    threads.append(threading.current_thread())
    return infer(*args, **options)
openvino.InferRequest.infer = noted

def backend():
    return create(Way("openvino", "fp32"), None, rgb_stats("birder"), batch_size=8, threads=2, folder=folder)
folder = Path({str(tmp_path)!r})
one, other = backend(), backend()
assert threads == [threading.main_thread()], threads
sys.setswitchinterval(1e-6)
one(np.zeros((8, 64, 64, 3), np.uint8))
assert len(threads) == 9
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.gpu
@pytest.mark.parametrize("way", [way for way in WAYS if way.name in ("cuda", "compiled", "torch")], ids=str)
def test_gpu_answers_are_those_of_the_processor(
    way: Way, family: str, build: Build, pictures: Pixels, images: Tensor
) -> None:
    network = build(family)
    logits, _ = infer_batch(network, images, return_logits=True)
    backend = made(way, network, device="cuda")
    outputs = backend(pictures)
    kept = copy.deepcopy(outputs)
    assert difference(outputs.logits, logits) < (1e-2 if way.precision == "fp32" else 0.1)
    for seed in range(4):
        order = torch.randperm(MOST, generator=torch.Generator().manual_seed(seed))
        for count in range(1, MOST + 1):
            expect_same(backend(pictures[order[:count].numpy()]), rows(kept, order[:count].numpy()))
    expect_same(outputs, kept)

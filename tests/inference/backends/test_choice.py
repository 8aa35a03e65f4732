"""The choice of a backend: the fastest that passes the gate, found out once for each model and machine."""

import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from birder.data.fitting import Pixels, normalized
from birder.errors import ConfigError, UnknownName
from birder.inference import machine
from birder.inference.backends import cache as backend_cache
from birder.inference.backends import choice, gate, probing, table
from birder.inference.backends.base import Outputs
from birder.inference.backends.choice import PLAIN, Chosen, suitable_batch_size
from birder.inference.backends.probing import candidates, reference
from birder.inference.backends.table import Way
from birder.networks import Network, create_network
from birder.signature import RGBStats, rgb_stats
from tests.inference.backends.at_once import AtOnce

STATS = rgb_stats("birder")
FAST = Way("openvino", "bf16")


class Fake(AtOnce):
    """The reference, less or more of an error."""

    def __init__(self, way: Way, network: Network, batch_size: int, off: float) -> None:
        self.name, self.way, self.network, self.batch_size, self.off = str(way), way, network, batch_size, off

    def answers(self, pixels: Pixels) -> Outputs:
        outputs = reference(self.network, pixels, STATS)
        return Outputs(outputs.embeddings + np.float32(self.off), outputs.logits)


@dataclass
class Bench:
    """A machine on which every way is known, and has the speed, the error or the failure that a test wants."""

    speeds: dict[str, float] = field(
        default_factory=lambda: {
            "openvino bf16": 40, "openvino fp32": 20, "openvino int8": 60, "compiled bf16": 50, "torch bf16": 30,
            "torch fp32": 10, "onnx fp32": 15,
        }
    )  # fmt: skip
    missing: dict[str, str] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    seconds_to_build: float = 0.0
    bfloat16: bool = True
    now: float = 0.0
    built: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    folders: list[Path | None] = field(default_factory=list)
    calibrations: list[Pixels | None] = field(default_factory=list)

    def names(self) -> tuple[str, ...]:
        return ("openvino", "compiled", "torch", "onnx")

    def available(self, device: str) -> dict[Way, str]:
        return {Way(*name.split()): self.missing.get(name, "") for name in self.speeds}  # type: ignore[arg-type]

    def create(self, way: Way, load: Callable[[], Network], stats: RGBStats, **options: object) -> Fake:
        self.built.append(str(way))
        self.now += self.seconds_to_build
        self.folders.append(options["folder"])  # type: ignore[arg-type]
        self.calibrations.append(options["pictures"])  # type: ignore[arg-type]
        if str(way) in self.failing:
            raise self.failing[str(way)]
        return Fake(way, load(), int(options["batch_size"]), self.off.get(str(way), 0))  # type: ignore[call-overload]

    def pictures_per_second(self, backends: list[Fake], pictures: Pixels) -> list[float]:
        self.timed.append(" and ".join(backend.name for backend in backends))
        return [self.speeds[backend.name] for backend in backends]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    bench = Bench()
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "home"))
    for name in ("names", "available", "create"):
        monkeypatch.setattr(table, name, getattr(bench, name))
    monkeypatch.setattr(probing, "pictures_per_second", bench.pictures_per_second)
    monkeypatch.setattr(probing, "computes_bfloat16", lambda device: bench.bfloat16)
    monkeypatch.setattr(probing.time, "perf_counter", lambda: bench.now)
    return bench


def choose(network: Network, stats: RGBStats, *, model_digest: str | None = None, **options: Any) -> Chosen:
    """As for a model that was loaded from a file of this checksum."""
    folder = None if model_digest is None else backend_cache.model_folder({"model": model_digest})
    return choice.choose(lambda: network, network.size, stats, folder=folder, **options)


@pytest.fixture(scope="module")
def small() -> Network:
    torch.manual_seed(1)
    network = create_network("convnext_v2_atto", 5, size=(32, 32), in_channels=(8, 8, 16, 16), num_layers=(1, 1, 1, 1))
    torch.nn.init.normal_(network.classifier.weight)
    return network.eval()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="birder"):
        yield caplog


def test_the_fastest_that_passes_is_taken_and_said(bench: Bench, small: Network) -> None:
    chosen = choose(small, STATS)
    assert (chosen.way, chosen.remembered) == (FAST, False)
    assert bench.built == ["openvino bf16", "torch bf16"]  # fp32 is not tried where the same in bf16 is good
    assert chosen.agreement is not None and chosen.agreement.pictures == 13
    assert chosen.sentence == (
        "openvino bf16, batches of 8: 40 pictures/s; same best class on 13 of 13 drawn birds, probabilities within 0, "
        "embeddings within 0"
    ).replace("pictures/s;", "pictures/s,")
    assert chosen.settings["backend"] == "openvino" and chosen.settings["precision"] == "bf16"
    assert chosen.settings["batch_size"] == chosen.backend.batch_size == 8
    assert bench.timed == ["openvino bf16 and torch bf16"]  # in turns, so whatever disturbs meets both
    bench.speeds["torch bf16"] = 41
    assert choose(small, STATS).way == Way("torch", "bf16")


def test_the_speed_of_the_only_one_that_passes_is_said_too(bench: Bench, small: Network) -> None:
    bench.off["torch bf16"] = 1
    chosen = choose(small, STATS, precision="bf16")
    assert chosen.way == FAST and "40 pictures/s" in chosen.sentence
    assert bench.timed == ["openvino bf16"]


def test_backends_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    now = 0.0
    monkeypatch.setattr(probing.time, "perf_counter", lambda: now)

    class Slow(AtOnce):
        def __init__(self, name: str, batch_size: int, seconds: float) -> None:
            self.name, self.batch_size, self.seconds = name, batch_size, seconds

        def answers(self, pixels: Pixels) -> Outputs:
            nonlocal now
            asked.append((self.name, len(pixels)))
            now += self.seconds * (1 if asked.count(asked[-1]) == 2 else 3)
            return Outputs(np.zeros((len(pixels), 1), np.float32))

    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    one, other = probing.pictures_per_second([Slow("one", 2, 0.125), Slow("other", 4, 0.25)], pictures)
    assert asked == [("one", 2), ("other", 4)] * 3
    assert (one, other) == (16, 16)  # their best


def test_what_is_refused_or_fails_is_passed_over_with_its_reason(
    bench: Bench, small: Network, log: pytest.LogCaptureFixture
) -> None:
    bench.off["openvino bf16"] = 1
    bench.failing["torch bf16"] = RuntimeError("no such kernel\nand a long trace")
    chosen = choose(small, STATS)
    assert bench.built == ["openvino bf16", "torch bf16", "openvino fp32", "torch fp32"]
    assert chosen.way == Way("openvino", "fp32")
    assert "not openvino bf16, as its embeddings are off" in chosen.sentence
    assert "not torch bf16, as no such kernel" in chosen.sentence and "trace" not in chosen.sentence
    assert "openvino bf16 is not used: its embeddings are off" in log.text
    assert "\n" not in chosen.sentence


def test_torch_fp32_is_taken_when_all_else_fails_even_if_nothing_is_a_number(bench: Bench, small: Network) -> None:
    bench.off = {"openvino bf16": 1, "openvino fp32": 1, "torch bf16": 1}
    chosen = choose(small, STATS, model_digest="a")
    assert chosen.way == PLAIN and chosen.sentence.count("not ") == 3
    assert choose(small, STATS, model_digest="a").remembered
    bench.off = dict.fromkeys(bench.speeds, float("nan"))
    chosen = choose(small, STATS, model_digest="b")
    assert chosen.way == PLAIN and "not all numbers" in chosen.sentence
    assert not choose(small, STATS, model_digest="b").remembered


def test_after_enough_time_no_further_way_is_tried_once_one_is_good(bench: Bench, small: Network) -> None:
    bench.seconds_to_build = probing.ENOUGH_S + 1
    bench.off["openvino bf16"] = 1
    assert choose(small, STATS).way == Way("torch", "bf16")
    assert bench.built == ["openvino bf16", "torch bf16"]


def test_which_ways_are_worth_a_try(bench: Bench) -> None:
    def names(backend: str = "auto", precision: str = "auto") -> list[str]:
        return [str(way) for way in candidates("cpu", backend, precision)]

    assert names() == ["openvino bf16", "torch bf16", "openvino fp32", "torch fp32"]
    assert names(precision="fp32") == ["openvino fp32", "torch fp32"]
    assert names(precision="bf16") == ["openvino bf16", "torch bf16"]
    assert names(precision="int8") == ["openvino int8"]
    assert names("openvino") == ["openvino bf16", "openvino fp32"]
    assert names("compiled", "bf16") == names("compiled") == ["compiled bf16"]
    assert names("torch", "fp32") == ["torch fp32"]
    bench.bfloat16 = False
    assert names() == ["openvino fp32", "torch fp32"]
    assert names("torch", "bf16") == ["torch bf16"]  # asked for
    bench.missing = {str(way): "openvino is not installed" for way in table.available("cpu") if way.name == "openvino"}
    assert names() == ["onnx fp32", "torch fp32"]
    with pytest.raises(ConfigError, match=r"openvino bf16: openvino is not installed.*torch fp32 is always there"):
        names("openvino")
    with pytest.raises(ConfigError, match="there is no onnx int8"):
        names("onnx", "int8")
    with pytest.raises(UnknownName, match="did you mean openvino"):
        names("openvin")


def test_what_was_asked_for_and_is_refused_is_an_error(bench: Bench, small: Network) -> None:
    bench.off["openvino bf16"] = 1
    with pytest.raises(ConfigError, match=r"not openvino bf16, as its embeddings.*--backend torch --precision fp32"):
        choose(small, STATS, backend="openvino", precision="bf16")
    bench.failing["onnx fp32"] = RuntimeError("opset")
    with pytest.raises(ConfigError, match="not onnx fp32, as opset"):
        choose(small, STATS, backend="onnx")


def test_torch_fp32_asked_for_is_made_at_once(
    bench: Bench, small: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probing, "reference", None)
    chosen = choose(small, STATS, backend="torch", precision="fp32", model_digest="a", batch_size=7, threads=2)
    assert (chosen.way, chosen.agreement, bench.timed) == (PLAIN, None, [])
    assert chosen.sentence == "torch fp32, batches of 7: as asked"
    assert chosen.settings["threads"] == 2


def test_int8_is_never_chosen_unasked_and_learns_from_the_pictures_given(bench: Bench, small: Network) -> None:
    assert "openvino int8" not in [str(way) for way in candidates("cpu")]
    bench.off["openvino int8"] = 0.1
    chosen = choose(small, STATS, precision="int8", model_digest="a")
    assert str(chosen.way) == "openvino int8" and "drawn birds" in chosen.sentence
    assert bench.calibrations[-1] is not None and len(bench.calibrations[-1]) >= 100
    for value in (0, 1):
        pictures = np.full((3, 32, 32, 3), value, np.uint8)
        choose(small, STATS, precision="int8", model_digest="a", calibration=pictures)
        assert bench.calibrations[-1] is pictures
    assert len(set(bench.folders)) == 3


def test_the_second_time_only_what_was_chosen_is_built(
    bench: Bench, small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose(small, STATS, model_digest="a")
    assert first.backend.name == "openvino bf16" and bench.folders[0] is not None
    bench.built.clear(), bench.timed.clear()
    monkeypatch.setattr(probing, "reference", lambda *_: pytest.fail("the reference was computed again"))
    monkeypatch.setattr(Fake, "__call__", lambda self, pixels: Outputs(*self.network_answers(pixels)))
    monkeypatch.setattr(Fake, "network_answers", answers, raising=False)
    second = choose(small, STATS, model_digest="a")
    assert second.remembered and (bench.built, bench.timed) == (["openvino bf16"], [])
    assert (second.way, second.sentence, second.agreement) == (first.way, first.sentence, first.agreement)
    assert second.settings == first.settings


def test_who_goes_on_with_what_was_chosen_asks_for_it_without_a_probe(bench: Bench, small: Network) -> None:
    first = choose(small, STATS, model_digest="a")
    settings = {name: first.settings[name] for name in ("backend", "precision", "batch_size", "threads")}
    bench.timed.clear()
    second = choose(small, STATS, model_digest="a", **settings)
    assert second.remembered and (second.way, bench.timed) == (first.way, [])
    assert second.settings == first.settings


def answers(self: Fake, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        embeddings = self.network.embedding(torch.from_numpy(normalized(pixels, STATS)))
        return embeddings.numpy() + np.float32(self.off), self.network.classify(embeddings).numpy()


def test_another_model_machine_version_or_question_is_probed_anew(
    bench: Bench, small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remembered(digest: str = "a", **options: object) -> bool:
        return choose(small, STATS, model_digest=digest, **options).remembered  # type: ignore[arg-type]

    assert [remembered(), remembered()] == [False, True]
    for options in ({"digest": "b"}, {"batch_size": 4}, {"threads": 1}, {"precision": "fp32"}, {"backend": "openvino"}):
        assert [remembered(**options), remembered(**options)] == [False, True], options
    with monkeypatch.context() as patch:
        patch.setattr(choice, "versions", lambda: {"torch": "9"})
        assert [remembered(), remembered()] == [False, True]
    with monkeypatch.context() as patch:
        patch.setattr(choice, "describe_machine", lambda device: {"processor": "another"})
        assert [remembered(), remembered()] == [False, True]
    assert remembered()


def test_what_has_become_wrong_since_is_noticed(bench: Bench, small: Network, log: pytest.LogCaptureFixture) -> None:
    choose(small, STATS, model_digest="a")
    bench.off["openvino bf16"] = 1
    chosen = choose(small, STATS, model_digest="a")
    assert chosen.way == Way("torch", "bf16") and not chosen.remembered
    assert "openvino bf16 was chosen for this model, but its embeddings are off" in log.text
    bench.failing["torch bf16"] = OSError("library is gone")
    chosen = choose(small, STATS, model_digest="a")
    assert chosen.way == Way("openvino", "fp32") and "library is gone" in log.text
    bench.missing["openvino fp32"] = "not installed"
    bench.failing["openvino fp32"] = ImportError("it is gone too")
    assert choose(small, STATS, model_digest="a").way == PLAIN


def kept(tmp_path: Path, suffix: str) -> Path:
    (path,) = (path for path in tmp_path.rglob("*.json") if '"auto",\n   "auto"' in path.read_text())
    return path.with_suffix(suffix)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"question": 1}', b"\xff\xfe", b"PK\x03\x04", None])
def test_a_damaged_cache_is_made_anew(
    bench: Bench, small: Network, tmp_path: Path, suffix: str, damage: bytes | None
) -> None:
    choose(small, STATS, model_digest="a")
    path = kept(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert not choose(small, STATS, model_digest="a").remembered
    assert choose(small, STATS, model_digest="a").remembered


@pytest.mark.parametrize("field", ["name", "precision", "agreement", "sentence"])
def test_an_answer_that_lacks_a_part_or_is_of_another_form_is_no_answer(
    bench: Bench, small: Network, tmp_path: Path, field: str
) -> None:
    for change in ("lacking", "other"):
        choose(small, STATS, model_digest="a")
        path = kept(tmp_path, ".json")
        content = json.loads(path.read_text())
        content["answer"].pop(field)
        if change == "other" and field != "sentence":
            content["answer"][field] = ["x"]
        path.write_text(json.dumps(content))
        assert not choose(small, STATS, model_digest="a").remembered


def test_a_place_that_cannot_be_written_is_no_error(
    bench: Bench, small: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert choose(small, STATS, model_digest="a").way == FAST
    assert log.text.count("cannot be kept") == 1
    assert bench.folders == [None] * 4


def test_without_a_digest_nothing_is_kept(bench: Bench, small: Network, tmp_path: Path) -> None:
    choose(small, STATS)
    assert not (tmp_path / "home").exists() and bench.folders == [None, None]


def test_the_converted_networks_of_models_not_used_for_long_are_deleted(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    now = time.time()
    for age, folder in enumerate(folders):
        (folder / "converted").mkdir(parents=True)
        (folder / "converted" / "graph.bin").write_bytes(bytes(1000))
        os.utime(folder, (now - 3 * age * backend_cache.REST, now - 3 * age * backend_cache.REST))

    def there() -> str:
        return "".join(sorted(path.name for path in tmp_path.iterdir()))

    backend_cache.trim(folders[3], limit=4000)
    assert there() == "abcd"
    backend_cache.trim(folders[3], limit=3000)  # d is the oldest, but in use
    assert there() == "abd"
    backend_cache.trim(folders[3], limit=0)  # a was used within the last day
    assert there() == "ad"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be 1 to 64"),
        ({"batch_size": 65}, "batch_size must be 1 to 64"),
        ({"threads": -1}, "threads must be"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16, int8"),
        ({"device": "abacus"}, "no device 'abacus'"),
    ],
)
def test_what_makes_no_sense_is_said(bench: Bench, small: Network, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose(small, STATS, **options)  # type: ignore[arg-type]


def test_batches_suit_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "free_memory", lambda device: None)
    for cores, wanted in ((1, 8), (2, 8), (4, 8), (5, 16), (8, 16), (16, 32), (200, 64)):
        monkeypatch.setattr(choice, "available_cores", lambda cores=cores: cores)
        assert suitable_batch_size((32, 32), "cpu") == wanted
    assert suitable_batch_size((32, 32), "cuda") == 64
    monkeypatch.setattr(choice, "free_memory", lambda device: 10 * 2**20)
    assert suitable_batch_size((32, 32), "cpu") == 4
    monkeypatch.setattr(choice, "free_memory", lambda device: 0)
    assert suitable_batch_size((32, 32), "cpu") == 1


def test_the_machine_is_described_the_same_each_time() -> None:
    first = machine.describe_machine("cpu")
    assert first == machine.describe_machine("cpu") and all(first.values())
    assert machine.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
    free = machine.free_memory("cpu")
    assert free is None or 2**20 < free < 2**50


def true_network() -> Network:
    torch.manual_seed(1)
    return create_network("convnext_v2_atto", 5, size=(32, 32), in_channels=(8, 8, 16, 16)).eval()


@pytest.mark.parametrize("backend", ["torch", pytest.param("auto", marks=pytest.mark.slow)])  # converting takes long
def test_from_end_to_end_and_the_second_time_without_a_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path))
    network = true_network()
    first = choose(network, STATS, model_digest="a", backend=backend)
    monkeypatch.setattr(probing, "pictures_per_second", lambda *_: pytest.fail("it was timed again"))
    monkeypatch.setattr(probing, "reference", lambda *_: pytest.fail("the reference was computed again"))
    second = choose(network, STATS, model_digest="a", backend=backend)
    assert not first.remembered and second.remembered
    assert (first.way, first.settings) == (second.way, second.settings)
    images = gate.golden_pictures((32, 32), 5)
    assert np.array_equal(first.backend(images).embeddings, second.backend(images).embeddings)


def test_who_reads_while_others_write_finds_a_whole_answer_or_none(tmp_path: Path) -> None:
    question = {"asked": "fast"}
    done = threading.Event()

    def write(number: int) -> None:
        while not done.is_set():
            wanted = Outputs(np.full((13, 100 + number), number, np.float32), np.zeros((13, 7), np.float32))
            backend_cache.write_choice(tmp_path, question, {"sentence": "x" * (5000 * number)}, wanted)

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        found = []
        while len(found) < 50:
            kept = backend_cache.read_choice(tmp_path, question)
            assert kept is not None or not found
            found += [] if kept is None else [kept]
    finally:
        done.set()
        for writer in writers:
            writer.join()
    for answer, wanted in found:
        assert len(answer["sentence"]) in (5000, 10000)
        assert wanted.embeddings.shape == (13, 100 + wanted.embeddings[0, 0])
    assert len(list(tmp_path.iterdir())) == 2


def in_a_process(home: str, results: "multiprocessing.Queue[str]") -> None:
    os.environ["BIRDER_HOME"] = home
    torch.set_num_threads(1)
    results.put(str(choose(true_network(), STATS, model_digest="a", backend="torch").way))


@pytest.mark.slow  # each process loads torch
def test_two_processes_at_once_leave_a_whole_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=in_a_process, args=(str(tmp_path), results)) for _ in range(2)]
    for process in processes:
        process.start()
    ways = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    monkeypatch.setenv("BIRDER_HOME", str(tmp_path))
    chosen = choose(true_network(), STATS, model_digest="a", backend="torch")
    assert chosen.remembered and str(chosen.way) in ways
    assert not list(tmp_path.rglob(".*"))

"""Files that are damaged, or no model files: each refused with its name and what to do, and nothing in it executed."""

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import birder
from birder.errors import BirderError, ConfigError, ModelFileError, UnknownName, WeightsMismatch
from birder.model_file import load_model, save_model
from birder.signature import PRESETS

CLASSES = {"Grünspecht": 0, "鳥": 1, "Robin": 2}
NAN, INFINITE = float("nan"), float("inf")


class Case(NamedTuple):
    """A file that must be refused."""

    make: Callable[[Path], object]
    """Changes the sound file that stands at the path."""
    message: str
    """A part of the error's message."""
    error: type[BirderError] = ModelFileError
    """Its class."""


class Code:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.system, ("touch executed",))


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def flipped(anchor: bytes, offset: int = 0, *, last: bool = False) -> Callable[[Path], object]:
    """All bits of the byte flipped that stands ``offset`` after a known text."""

    def change(content: bytes) -> bytes:
        place = (content.rindex if last else content.index)(anchor) + offset
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]

    return bytes_of(change)


def cut(share: float) -> Callable[[Path], object]:
    return bytes_of(lambda content: content[: int(len(content) * share)])


def entry(name: str, value: Any) -> Callable[[Path], object]:
    """Another value for one entry of a ``.pt`` file, or none at all."""

    def make(path: Path) -> None:
        entries = torch.load(path, weights_only=True)
        entries.pop(name, None)
        torch.save(entries if value is None else {**entries, name: value}, path)

    return make


def weight(name: str, value: torch.Tensor | None) -> Callable[[Path], object]:
    """Another tensor for one weight of a ``.pt`` file, or none at all."""

    def make(path: Path) -> None:
        entries = torch.load(path, weights_only=True)
        entries["state"].pop(name, None)
        if value is not None:
            entries["state"][name] = value
        torch.save(entries, path)

    return make


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """A ``.safetensors`` file with a changed header."""

    def make(path: Path) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        table = json.loads(content[8 : 8 + length])
        change(table)
        text = json.dumps(table).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return make


def archive(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("model/data.pkl", data)
        content.writestr("model/version", "3")
    return file.getvalue()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def signature(inputs: Any = (0, 3, 32, 64), outputs: Any = (0, 3)) -> Callable[[Path], object]:
    return entry("signature", {"inputs": [{"data_shape": inputs}], "outputs": [{"data_shape": outputs}]})


def statistics(mean: Any, std: Any) -> Callable[[Path], object]:
    return entry("rgb_stats", {"mean": mean, "std": std})


def quantised() -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # it is on its way out of torch
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def other_suffix(path: Path) -> None:
    """The content of the other format under this name."""
    other = path.with_suffix({".pt": ".safetensors", ".safetensors": ".pt"}[path.suffix])
    save(other)
    other.rename(path)


def metadata(name: str, text: str) -> Callable[[Path], object]:
    return header(lambda table: table["__metadata__"].update({name: text}))


BIAS = "classifier.bias"
DAMAGED = "is damaged or no"
SIZES = "the numbers of the signature are out of range"
SHAPE = r"no inputs[0].data_shape of (0, channels, height, width)"
LABELS = "class_to_idx does not give each class name a number of its own"
CODE = "only running its code could read"

ANY_FORMAT = {
    "empty": Case(bytes_of(lambda _: b""), "is empty"),
    "10 bytes": Case(bytes_of(lambda content: content[:10]), DAMAGED),
    "a tenth": Case(cut(0.1), DAMAGED),
    "half": Case(cut(0.5), DAMAGED),
    "all but the end": Case(bytes_of(lambda content: content[:-1]), DAMAGED),
    "zeros": Case(bytes_of(lambda content: bytes(len(content))), DAMAGED),
    "text": Case(bytes_of(lambda _: b"not a model"), DAMAGED),
    "json": Case(bytes_of(lambda _: b'{"state": {}}'), "is JSON text, not weights"),
    "web page": Case(bytes_of(lambda _: b"<!DOCTYPE html><html>404</html>"), "is a web page; the download went wrong"),
    "git-lfs": Case(bytes_of(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "git lfs pull"),
    "wrong suffix": Case(other_suffix, "with the wrong suffix; name it ."),
    "folder": Case(folder, "a folder, not a model file"),
    "loop of links": Case(link_to_itself, "cannot be read"),
    "pipe": Case(pipe, "a pipe or a device"),
    "device": Case(device, "a pipe or a device"),
}

TORCH = {
    "directory of the archive": Case(flipped(b"PK\x01\x02", 1, last=True), DAMAGED),
    "place in the directory": Case(flipped(b"PK\x01\x02", 42), DAMAGED),
    "name in the directory": Case(flipped(b"PK\x01\x02", 50, last=True), DAMAGED),
    "head of a record": Case(flipped(b"PK\x03\x04", 1, last=True), DAMAGED),
    "end of the archive": Case(flipped(b"PK\x06\x06", 48), DAMAGED),
    "name of a class": Case(flipped(b"Robin", 2), "Bad CRC-32"),
    "name of a weight": Case(flipped(b"stem.0.weight", 5), "Bad CRC-32"),
    "shape of a weight": Case(flipped(b"_rebuild_tensor_v2", 30), "Bad CRC-32"),
    "code": Case(bytes_of(lambda _: pickle.dumps({"state": Code()}, protocol=2)), CODE),
    "code in an archive": Case(bytes_of(lambda _: archive(pickle.dumps({"state": Code()}, protocol=2))), CODE),
    "newer pickle with code": Case(bytes_of(lambda _: archive(pickle.dumps({"state": Code()}, protocol=4))), "operand"),
    "half a pickle": Case(bytes_of(lambda _: archive(pickle.dumps({"state": [1]}, protocol=2)[:-4])), DAMAGED),
    "no pickle": Case(bytes_of(lambda _: archive(b"")), DAMAGED),
    "list": Case(lambda path: torch.save([1, 2], path), "holds a list, not the dictionary"),
    "bare weights": Case(lambda path: torch.save(tiny().state_dict(), path), "no weights under 'state'"),
    "nothing": Case(lambda path: torch.save({}, path), "no weights under 'state'"),
    "state no dictionary": Case(entry("state", [1]), "no weights under 'state'"),
    "state of numbers": Case(entry("state", {"stem": 3}), "something else than weights"),
    "state by numbers": Case(entry("state", {3: torch.zeros(1)}), "something else than weights"),
    "state within state": Case(entry("state", {"stem": {"0": torch.zeros(1)}}), "something else than weights"),
    "states of a training": Case(lambda path: torch.save({"optimizer_state": {}}, path), "the state of a training"),
    "head alone": Case(
        lambda path: torch.save({"state": {"weight": torch.zeros(3, 16)}, "class_to_idx": CLASSES}, path),
        "it has no signature",
    ),
    "no state": Case(entry("state", None), "no weights under 'state'"),
    "weight missing": Case(weight("stem.0.bias", None), "stem.0.bias is missing", WeightsMismatch),
    "weight too many": Case(weight("stem.9.bias", torch.ones(1)), "stem.9.bias is not known", WeightsMismatch),
    "name with a line break": Case(weight("a\nb", torch.ones(1)), "a\nb is not known", WeightsMismatch),
    "weight of another shape": Case(weight(BIAS, torch.zeros(4)), "bias is (4,), expected (3,)", WeightsMismatch),
    "whole numbers": Case(weight(BIAS, torch.zeros(3, dtype=torch.int8)), "(3,) of torch.int8", WeightsMismatch),
    "sparse": Case(weight(BIAS, torch.ones(3).to_sparse()), f"{BIAS} is sparse"),
    "quantised": Case(weight(BIAS, quantised()), f"{BIAS} is sparse, quantised"),
    "complex": Case(weight(BIAS, torch.ones(3, dtype=torch.complex64)), f"{BIAS} is sparse, quantised, complex"),
    "without memory": Case(weight(BIAS, torch.ones(3, device="meta")), f"{BIAS} is sparse, quantised, complex"),
    "no number": Case(weight(BIAS, torch.tensor([0, NAN, 0])), f"{BIAS} has values that are infinite or no numbers"),
    "infinite": Case(weight(BIAS, torch.tensor([0, -INFINITE, INFINITE])), f"{BIAS} has values that are infinite"),
    "too large": Case(weight(BIAS, torch.tensor([1e300] * 3, dtype=torch.float64)), f"{BIAS} has values that are"),
    "no signature": Case(entry("signature", None), "it has no signature"),
    "signature as a list": Case(entry("signature", [1]), "it has no signature"),
    "signature of nothing": Case(entry("signature", {"inputs": []}), SHAPE),
    "signature in words": Case(signature(inputs=(0, "3", "32", "64")), SHAPE),
    "signature with a text": Case(signature(inputs="abcd"), SHAPE),
    "signature too short": Case(signature(inputs=(0, 32, 64)), SHAPE),
    "fractions of pixels": Case(signature(inputs=(0, 3, 32.0, INFINITE)), SHAPE),
    "outputs missing": Case(entry("signature", {"inputs": [{"data_shape": (0, 3, 32, 64)}]}), "no outputs[0]"),
    "negative size": Case(signature(inputs=(0, 3, -32, 64)), SIZES),
    "huge size": Case(signature(inputs=(0, 3, 32, 10**12)), SIZES),
    "no channels": Case(signature(inputs=(0, 0, 32, 64)), SIZES),
    "negative classes": Case(signature(outputs=(0, -1)), SIZES),
    "huge number of classes": Case(signature(outputs=(0, 10**15)), SIZES),
    "too small a size": Case(signature(inputs=(0, 3, 32, 31)), "size must be (height, width)", ConfigError),
    "more classes in the signature": Case(signature(outputs=(0, 4)), "3 names, but the signature says 4 classes"),
    "more class names": Case(entry("class_to_idx", {**CLASSES, "d": 3}), "has 4 names, but the signature says 3"),
    "another classifier": Case(
        lambda path: (signature(outputs=(0, 2))(path), entry("class_to_idx", {"a": 0, "b": 1})(path)),
        "classifier.weight is (3, 16), expected (2, 16)",
        WeightsMismatch,
    ),
    "class names without labels": Case(entry("class_to_idx", ["a", "b", "c"]), LABELS),
    "label twice": Case(entry("class_to_idx", {"a": 0, "b": 0, "c": 2}), LABELS),
    "labels in words": Case(entry("class_to_idx", {"a": "0", "b": "1", "c": "2"}), LABELS),
    "labels from 1": Case(entry("class_to_idx", {"a": 1, "b": 2, "c": 3}), LABELS),
    "true and false": Case(entry("class_to_idx", {"a": False, "b": True, "c": 2}), LABELS),
    "numbers for names": Case(entry("class_to_idx", {5: 0, 6: 1, 7: 2}), LABELS),
    "no statistics": Case(entry("rgb_stats", None), "no colour statistics"),
    "statistics in words": Case(statistics("abc", "def"), "no colour statistics"),
    "deviation of zero": Case(statistics((0.5, 0.5, 0.5), (0.2, 0.0, 0.2)), "a std above 0"),
    "two colours": Case(statistics((0.5, 0.5), (0.2, 0.2)), "rgb_stats needs"),
    "statistics without end": Case(statistics((0.5, NAN, 0.5), (0.2, 0.2, INFINITE)), "rgb_stats needs"),
    "another task": Case(entry("task", "object_detection"), "is a model for object_detection"),
    "task no text": Case(entry("task", 5), "task, birder_version or network no name"),
    "network no text": Case(entry("network", 5), "task, birder_version or network no name"),
    "network unknown": Case(entry("network", "convnext_v2_ato"), "did you mean convnext_v2_atto", UnknownName),
    "version no text": Case(entry("birder_version", 0.4), "task, birder_version or network no name"),
    "version unreadable": Case(entry("birder_version", "latest"), "which is no version such as v0.4.1"),
    "config as a list": Case(entry("config", [1]), "config is no table"),
    "config with unknown keys": Case(entry("config", {"depth": 3}), "depth: no such option", ConfigError),
    "config in words": Case(entry("config", {"num_layers": "many"}), "num_layers: expected a list", ConfigError),
    "config that hides the size": Case(entry("config", {"size": (32, 32)}), "its options build no convnext_v2_atto"),
    "config of another network": Case(
        entry("config", {"num_layers": (1, 1, 1, 1)}), "weights do not fit", WeightsMismatch
    ),
    "impossible config": Case(
        entry("config", {"in_channels": (2**62, 8, 8, 8), "num_layers": (1, 1, 1, 1)}), "its options build no"
    ),
}

SAFETENSORS = {
    "code": Case(bytes_of(lambda _: pickle.dumps({"state": Code()}, protocol=2)), DAMAGED),
    "length of the header": Case(flipped(b"", 1), DAMAGED),
    "huge header": Case(flipped(b"", 7), DAMAGED),
    "header": Case(flipped(b"{"), DAMAGED),
    "type of a weight": Case(flipped(b"F32"), DAMAGED),
    "place of a weight": Case(header(lambda table: table[BIAS].update(data_offsets=[0, 10**9])), DAMAGED),
    "overlapping weights": Case(header(lambda table: table[BIAS].update(data_offsets=[0, 12])), DAMAGED),
    "shape of a weight": Case(header(lambda table: table[BIAS].update(shape=[10**9, 10**9, 10**9])), DAMAGED),
    "name of a weight": Case(header(lambda table: table.update(x=table.pop(BIAS))), "is missing", WeightsMismatch),
    "no metadata": Case(header(lambda table: table.pop("__metadata__")), "it has no signature"),
    "of another project": Case(
        lambda path: save_file({"a": torch.ones(2)}, path, {"format": "pt"}), "it has no signature"
    ),
    "signature no JSON": Case(metadata("signature", "{'inputs': 3}"), "signature is no JSON"),
    "deep JSON": Case(metadata("config", "[" * 100_000), "config is no JSON"),
    "config a text": Case(metadata("config", '"large"'), "config is no table"),
    "complex": Case(
        lambda path: save_file({**tiny().state_dict(), BIAS: torch.ones(3, dtype=torch.complex64)}, path, texts(path)),
        f"{BIAS} is sparse, quantised, complex",
    ),
    "no number": Case(
        lambda path: save_file({**tiny().state_dict(), BIAS: torch.full((3,), NAN)}, path, texts(path)),
        f"{BIAS} has values that are infinite or no numbers",
    ),
}

CASES = [
    *((suffix, name, case) for name, case in ANY_FORMAT.items() for suffix in (".pt", ".safetensors")),
    *((".pt", name, case) for name, case in TORCH.items()),
    *((".safetensors", name, case) for name, case in SAFETENSORS.items()),
]


def texts(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def tiny() -> birder.networks.Network:
    options = {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 2)}
    return birder.create_network("convnext_v2_atto", 3, size=(32, 64), **options)


def save(path: Path) -> None:
    save_model(path, tiny(), class_to_idx=CLASSES, rgb_stats=PRESETS["clip"])


@pytest.mark.parametrize(("suffix", "name", "case"), CASES, ids=[f"{name} {suffix}" for suffix, name, _ in CASES])
def test_the_file_is_refused(suffix: str, name: str, case: Case, tmp_path, monkeypatch) -> None:
    if sys.platform == "win32" and name in ("pipe", "device", "loop of links"):
        pytest.skip("there are none")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{suffix}"
    save(path)
    load_model(path)  # sound until now
    case.make(path)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(BirderError) as raised:
        warnings.simplefilter("always")
        load_model(path)
    assert type(raised.value) is case.error
    assert str(raised.value).startswith(str(path))
    assert case.message in str(raised.value)
    assert not warned
    assert [item.name for item in tmp_path.iterdir()] == [path.name]  # no half file, and no trace of code


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_locked_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    save(path)
    path.chmod(0)
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model(path)


def test_the_trace_of_code_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Code(), protocol=2))
    assert [item.name for item in tmp_path.iterdir()] == ["executed"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_model(tmp_path / f"{name}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_any_changed_byte_and_any_cut(suffix: str, tmp_path: Path) -> None:
    """Each is refused as the others are, or does not matter; no other error, and no warning."""
    path, random = tmp_path / f"model{suffix}", Random(0)
    save(path)
    sound, refused = path.read_bytes(), 0
    for number in range(1000):
        # Tables stand at the beginning, and in an archive also at the end.
        place = random.randrange(8_000) if number % 2 else len(sound) - 1 - random.randrange(8_000)
        changed = bytes([sound[place] ^ 1 << random.randrange(8)]) + sound[place + 1 :]
        path.write_bytes(sound[:place] + (changed if number % 5 else b""))
        try:
            load_model(path)
        except BirderError as error:
            refused += 1
            assert str(error).startswith(str(path))
    assert refused > 400

"""Where to compute, found out without torch where that is possible."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from birder import device
from birder.device import _NVIDIA_FILES as NVIDIA_FILES
from birder.device import computes_bfloat16, device_name, resolve_device
from birder.errors import ConfigError


def test_the_processor_says_what_torch_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    assert computes_bfloat16("cpu") == expected
    monkeypatch.setattr(device, "processor", lambda: ("some", ""))  # as where the system says nothing
    assert computes_bfloat16("cpu") == expected
    for abilities, fast in {"fma avx2 avx512_bf16": True, "amx_tile": True, "avx512f": False}.items():
        monkeypatch.setattr(device, "processor", lambda abilities=abilities: ("some", abilities))
        assert computes_bfloat16("cpu") == fast
    assert not computes_bfloat16("mps")


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_the_name_is_that_of_what_torch_finds(name: str) -> None:
    assert device_name(name) == str(resolve_device(name))


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="no device 'abacus'; cpu is always there"):
        device_name("abacus")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """A Linux machine without a GPU, with torch as it is published for all; gives what ``auto`` is there."""
    real = Path

    def auto(version: str = "2.11.0", files: Sequence[str] = (), entry_points: Sequence[str] = ()) -> str:
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("0x10de\n")
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(device, "resolve_device", lambda name: torch.device("cuda", 0))
        monkeypatch.setattr(device, "Path", lambda path: real(f"{tmp_path}{path}"))
        monkeypatch.setattr(device, "_NVIDIA_FILES", tuple(f"{tmp_path}{path}" for path in NVIDIA_FILES))
        monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entry_points)
        return device_name("auto")

    return auto


@pytest.mark.parametrize("version", ["2.11.0", "2.11.0+cu130", "2.11.0+cpu", "2.11.0+cpu.cxx11.abi"])
def test_without_an_accelerator_torch_is_not_asked(bare: Callable[..., str], version: str) -> None:
    assert bare(version) == "cpu"
    assert bare(version, files=["sys/bus/pci/devices/0/other"]) == "cpu"


@pytest.mark.parametrize("name", ["dev/nvidiactl", "dev/dxg", "proc/driver/nvidia", "sys/bus/pci/devices/0/vendor"])
def test_where_there_may_be_an_nvidia_gpu_torch_is_asked(bare: Callable[..., str], name: str) -> None:
    """The files may be made by the first who asks, so the machine itself is looked at, too."""
    assert bare(files=[name]) == "cuda:0"
    assert device_name("cpu") == "cpu"
    assert bare("2.11.0+cpu", files=[name]) == "cpu"


@pytest.mark.parametrize("version", ["2.11.0+xpu", "2.11.0+rocm7.1", "2.11.0+git123", "2.11.0a0+custom"])
def test_of_torch_that_was_made_for_others_torch_is_asked(bare: Callable[..., str], version: str) -> None:
    assert bare(version) == "cuda:0"


def test_of_an_accelerator_that_adds_itself_to_torch_torch_is_asked(bare: Callable[..., str]) -> None:
    assert bare("2.11.0+cpu", entry_points=["an accelerator's own"]) == "cuda:0"


def test_of_torch_that_says_no_version_torch_is_asked(
    bare: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    bare()
    monkeypatch.setattr(importlib.metadata, "version", unknown)
    assert device_name("auto") == "cuda:0"


def test_one_of_several_processors_is_the_processor() -> None:
    assert device_name("cpu:0") == "cpu"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_on_a_processor_no_torch_is_imported() -> None:
    script = (
        "import sys; from birder.device import computes_bfloat16, device_name; "
        "computes_bfloat16('cpu'); device_name('cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

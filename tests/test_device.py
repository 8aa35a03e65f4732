"""Where to compute, found out without torch where that is possible."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from birder import device
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_torch_is_asked_where_there_may_be_an_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device, "resolve_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(device, "Path", lambda *parts: tmp_path.joinpath(*parts[1:]))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.11.0+cpu")
    assert device_name("auto") == "cpu"
    for driver in ("nvidiactl", "kfd", "dxg"):
        (tmp_path / driver).touch()
        assert device_name("auto") == "cuda:0"
        assert device_name("cpu") == "cpu"
        (tmp_path / driver).unlink()
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.11.0+xpu")
    assert device_name("auto") == "cuda:0"
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.11.0")
    assert device_name("auto") == "cpu"
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ["an accelerator's own"])
    assert device_name("auto") == "cuda:0"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_on_a_processor_no_torch_is_imported() -> None:
    script = (
        "import sys; from birder.device import computes_bfloat16, device_name; "
        "computes_bfloat16('cpu'); device_name('cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

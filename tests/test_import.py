"""What an import brings along: ``import birder`` and ``--help`` start quickly because they load nothing heavy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import birder
from birder.model_file import save_model
from birder.networks import create_network
from birder.signature import rgb_stats

HEAVY = ("torch", "numpy", "PIL")
EXTRAS = ("torchvision", "sklearn", "pyarrow", "scipy")

SHOW_LOADED = "\nimport json, sys\nprint(json.dumps(sorted(name for name in sys.modules if '.' not in name)))"


def loaded_by(code: str, root: Path) -> set[str]:
    """The packages in memory after some code has run in a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code + SHOW_LOADED]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_birder_alone_loads_nothing_heavy(root: Path) -> None:
    assert not loaded_by("import birder\nbirder.__version__\ndir(birder)", root) & {*HEAVY, *EXTRAS}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
@pytest.mark.parametrize(
    "start",
    [
        "from birder.cli.__main__ import main; main()",
        "import runpy; runpy.run_module('birder', run_name='__main__')",
    ],
    ids=["birder", "python -m birder"],
)
def test_help_loads_no_torch(start: str, arguments: list[str], root: Path) -> None:
    code = f"""import sys
sys.argv = {["birder", *arguments]}
try:
    {start}
except SystemExit as end:
    assert not end.code
"""
    assert "torch" not in loaded_by(code, root)


def test_every_module_imports_without_the_extras(root: Path) -> None:
    paths = [path.relative_to(root).with_suffix("") for path in sorted((root / "birder").rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    imports = "\n".join(f"importlib.import_module({name!r})" for name in names)
    loaded = loaded_by(f"import importlib\n{imports}", root)
    assert "torch" in loaded
    assert not loaded & set(EXTRAS)


@pytest.mark.parametrize("network", ["regnet_x_200m", "pvt_v2_b0", "convnext_v2_atto", "vit_t16"])
def test_a_model_is_loaded_without_torch_s_compiler(network: str, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    classes = {"a": 0, "b": 1, "c": 2}
    save_model(file, create_network(network, 3), class_to_idx=classes, rgb_stats=rgb_stats("birder"))
    code = f"""import sys
from birder.model_file import load_model
load_model({str(file)!r})
assert "torch._dynamo" not in sys.modules"""
    assert "torch" in loaded_by(code, root)


@pytest.mark.parametrize("name", birder.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(birder, name) is not None
    assert name in dir(birder)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'birder' has no attribute 'create_netwrok'"):
        birder.create_netwrok  # noqa: B018

"""Public names that are imported when they are first used."""

import subprocess
import sys
from importlib import import_module

import pytest

from birder.lazy import lazy


@pytest.mark.parametrize("package", ["birder", "birder.model_file"])
def test_all_public_names_are_there_and_only_they(package: str) -> None:
    module = import_module(package)
    assert set(module.__all__) - {"__version__"} == set(module._HOME)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_a_name_is_that_of_its_module_also_under_another_one() -> None:
    get, _ = lazy(__name__, {"elsewhere": "json", "dumps": "json", "other": "json:dumps"})
    import json

    assert get("dumps") is json.dumps and get("other") is json.dumps
    with pytest.raises(AttributeError):
        get("elsewhere")
    assert dumps is json.dumps  # type: ignore[name-defined]  # noqa: F821  # looked for once


def test_what_needs_no_torch_imports_none() -> None:
    script = (
        "import sys, birder; from birder.model_file import Calibration; import birder.inference.predictor, "
        "birder.inference.job; assert 'torch' not in sys.modules; birder.load_model; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

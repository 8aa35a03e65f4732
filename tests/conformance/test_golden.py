"""The recorded numbers of ``shared/golden`` beside the repository: the same names, shapes, outputs and files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What this package covers, and must go on covering: skipping any of it is a failure.
COVERED = (
    "seeds/*",
    *(f"zoo/{name}" for name in ("convnext_v2_atto", "pvt_v2_b0_li", "regnet_x_200m", "vit_parallel*", "vit_t14")),
    "variants/vit*",
    "variants/deit3*",
    # A pattern without a wildcard would also fit longer names, as of regnet_z.
    *(f"registry/{name}" for name in ("_pretrained", "convnext_v2", "pvt_v2", "regne?", "vi?", "vit_parallel")),
    *(f"checkpoints/{name}" for name in ("micro_*", "channels4*", "mim_*")),
    "transforms/*",
    *(f"objectives/{name}_*" for name in ("mae_vit", "fcmae", "simmim")),
    "objectives/data2vec_*",
    "objectives/i_jepa_*",
    *(f"objectives/{name}_*" for name in ("dino_v1", "ibot")),
    "masking/generators",
    "objectives/mmcr*",
    *(f"objectives/{name}_convnext_v2" for name in ("barlow_twins", "byol", "simclr", "vicreg")),
)
# Of these, what takes seconds.
FAST = (
    "seeds/*_micro",
    "registry/_pretrained",
    *(f"registry/{name}" for name in ("convnext_v2", "pvt_v2", "regne?", "vit_parallel")),
    *(f"checkpoints/{name}" for name in ("micro_*", "channels4*", "mim_*")),
    "transforms/classification",
    "transforms/infer_*_micro*",
    *(f"objectives/{name}_*" for name in ("mae_vit", "fcmae", "simmim")),
    "objectives/data2vec_*",
    "objectives/i_jepa_*",
    *(f"objectives/{name}_*" for name in ("dino_v1", "ibot")),
    "masking/generators",
    "objectives/mmcr*",
    *(f"objectives/{name}_convnext_v2" for name in ("barlow_twins", "byol", "simclr", "vicreg")),
)


def check(shared: Path, *arguments: str, capture: bool) -> subprocess.CompletedProcess[str]:
    """Run the checker with our adapter, in a process of its own."""
    adapter = Path(__file__).with_name("adapter.py")
    required = [word for pattern in COVERED for word in ("--require", pattern)]
    command = [sys.executable, str(shared / "golden" / "check.py"), "--adapter", str(adapter), *required, *arguments]
    root = adapter.parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=capture, text=True, check=False)


def test_what_is_covered_agrees(shared: Path) -> None:
    result = check(shared, *(word for pattern in FAST for word in ("--only", pattern)), capture=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_everything_agrees(shared: Path) -> None:
    assert check(shared, capture=False).returncode == 0, "see the lines of the checker above"

"""The pinned environment has what pyproject.toml asks for, on every system."""

import importlib
import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pinned(root: Path) -> dict[str, Requirement]:
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_every_dependency_is_pinned_to_a_version_that_will_do(
    project: dict[str, Any], pinned: dict[str, Requirement]
) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *itertools.chain(*extras.values()),
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name == "birder":
            assert requirement.extras == extras.keys() - {"all"}
            continue
        pin = pinned[canonicalize_name(requirement.name)]
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{pin} does not fit {requirement}"


def test_the_lock_pins_and_has_no_addresses(root: Path, pinned: dict[str, Requirement]) -> None:
    assert "://" not in (root / "requirements.lock").read_text(encoding="utf-8")
    for name, requirement in pinned.items():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), f"{name} is not pinned"


def test_other_systems_are_not_asked_for_linux_packages(pinned: dict[str, Requirement]) -> None:
    for name, requirement in pinned.items():
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            assert requirement.marker is not None, name
            assert not requirement.marker.evaluate({"sys_platform": "darwin"}), name
            assert not requirement.marker.evaluate({"sys_platform": "win32"}), name


def test_the_command_is_there(project: dict[str, Any]) -> None:
    module, _, name = project["project"]["scripts"]["birder"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))

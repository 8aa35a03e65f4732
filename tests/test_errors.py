"""Errors say what to do, and are caught by those who do not know birder."""

import inspect
import re

import pytest

from birder import errors
from birder.errors import BirderError, MissingPackage, UnknownName, need, suggestion

CHILDREN = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, BirderError) and value is not BirderError
]


def test_the_tree_in_the_docstring_has_all_errors() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +\((\w+)\)", errors.__doc__ or ""))
    assert drawn == {error.__name__: error.__bases__[1].__name__ for error in CHILDREN}


@pytest.mark.parametrize("error", CHILDREN, ids=lambda error: error.__name__)
def test_an_error_is_ours_and_a_builtin_and_shows_its_message(error: type[BirderError]) -> None:
    ours, builtin = error.__bases__
    assert ours is BirderError
    assert builtin.__module__ == "builtins"
    assert str(error("no network is called 'x'")) == "no network is called 'x'"


def test_a_message_may_have_several_parts_or_none() -> None:
    assert str(UnknownName()) == ""
    assert str(BirderError("a", 1)) == "a 1"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnext_v2_tny", "; did you mean convnext_v2_tiny?"),
        ("zzz", ""),
        ("", ""),
        (12, ""),
    ],
)
def test_suggestion(name: object, hint: str) -> None:
    assert suggestion(name, ["convnext_v2_tiny", "vit_l16"]) == hint  # type: ignore[arg-type]


def test_suggestions_are_at_most_three_the_nearest_first() -> None:
    hint = suggestion("vit_b1", ["vit_b16", "vit_b14", "vit_b32", "vit_b", "vit_l16"])
    assert hint.startswith("; did you mean vit_b")
    assert hint.count(",") == 2


def test_need_gives_the_module() -> None:
    assert need("json", extra="tables", purpose="reading") is __import__("json")


def test_need_says_which_extra_brings_the_package() -> None:
    with pytest.raises(MissingPackage) as caught:
        need("no_such_package", extra="tables", purpose="writing Parquet")
    assert str(caught.value) == "writing Parquet needs no_such_package: pip install 'birder[tables]'"
    assert isinstance(caught.value, ImportError)

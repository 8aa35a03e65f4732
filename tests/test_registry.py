"""A table of named variants."""

import pytest

from birder.errors import UnknownName
from birder.registry import Registry


class Thing:
    pass


@pytest.fixture
def things() -> Registry[Thing]:
    table: Registry[Thing] = Registry("thing")
    table.register(small_b=1, small_a=2, large=3)(Thing)
    return table


def test_it_is_a_mapping_in_the_order_of_registration(things: Registry[Thing]) -> None:
    assert list(things) == things.names() == ["small_b", "small_a", "large"]
    assert len(things) == 3
    assert things["small_a"] == (Thing, 2)
    assert dict(things) == {"small_b": (Thing, 1), "small_a": (Thing, 2), "large": (Thing, 3)}


def test_decorating_gives_the_class_back() -> None:
    assert Registry("thing").register(a=1)(Thing) is Thing


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["small_b", "small_a", "large"]),
        ("small_*", ["small_b", "small_a"]),
        ("SMALL_?", ["small_b", "small_a"]),
        ("large", ["large"]),
        ("arg", []),
    ],
)
def test_names_by_shell_pattern(things: Registry[Thing], pattern: str, names: list[str]) -> None:
    assert things.names(pattern) == names


def test_membership_asks_no_questions(things: Registry[Thing]) -> None:
    assert "large" in things
    assert "larg" not in things
    assert 3 not in things
    assert things.get("larg") is None


def test_an_unknown_name_is_answered_with_near_ones(things: Registry[Thing]) -> None:
    with pytest.raises(UnknownName) as caught:
        things["smal_a"]
    assert str(caught.value) == "no thing is called 'smal_a'; did you mean small_a, small_b?"
    with pytest.raises(KeyError):
        things["nothing like it"]


def test_a_name_is_given_once(things: Registry[Thing]) -> None:
    with pytest.raises(AssertionError, match="thing large is registered twice"):
        things.register(large=4)
        things.register(large=4)(Thing)
    assert things["large"] == (Thing, 3)

"""Dataclasses from plain data: each mistake is named with its path, all of them at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birder.config import check, from_dict, to_dict, with_options, within
from birder.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optim:
    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr: must be above 0, not {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Crop:
    scale: float


@dataclass(frozen=True, kw_only=True)
class Flip:
    chance: float


@dataclass(frozen=True, kw_only=True)
class Run:
    network: str
    epochs: int = 10
    compiled: bool = False
    size: tuple[int, int] | None = None
    widths: tuple[int, ...] = ()
    optim: Optim = Optim()
    options: dict[str, int] = field(default_factory=dict)
    augment: Crop | Flip | None = None
    anything: Any = None


def mistakes(**data: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, data)
    return str(caught.value).splitlines()


def test_missing_values_take_their_defaults() -> None:
    assert from_dict(Run, {"network": "a"}) == Run(network="a")


def test_everything_at_once() -> None:
    data = {
        "network": "a",
        "epochs": 3,
        "compiled": True,
        "size": [224, 256],
        "widths": [1, 2, 3],
        "optim": {"name": "sgd", "lr": 1, "betas": [0, 1]},
        "options": {"a": 1},
        "augment": {"chance": 0.5},
        "anything": [object],
    }
    assert from_dict(Run, data) == Run(
        network="a",
        epochs=3,
        compiled=True,
        size=(224, 256),
        widths=(1, 2, 3),
        optim=Optim(name="sgd", lr=1.0, betas=(0.0, 1.0)),
        options={"a": 1},
        augment=Flip(chance=0.5),
        anything=[object],
    )


def test_a_dataclass_may_stand_for_its_table() -> None:
    assert from_dict(Run, {"network": "a", "optim": Optim(lr=0.5)}).optim == Optim(lr=0.5)


def test_whole_numbers_become_numbers_where_asked_for() -> None:
    lr = from_dict(Run, {"network": "a", "optim": {"lr": 2}}).optim.lr
    assert (lr, type(lr)) == (2.0, float)


@pytest.mark.parametrize(
    ("data", "mistake"),
    [
        ({"epoch": 3}, "epoch: no such option; did you mean epochs?"),
        ({"zzz": 3}, "zzz: no such option"),
        ({"optim": {"lrr": 3.0}}, "optim.lrr: no such option; did you mean lr?"),
        ({"optim": 3}, "optim: expected a table of options, got 3"),
        ({"optim": {"name": "adam"}}, "optim.name: 'adam' is not one of adamw, sgd; did you mean adamw?"),
        ({"optim": {"name": ["adamw"]}}, "optim.name: ['adamw'] is not one of adamw, sgd; did you mean adamw?"),
        ({"optim": {"betas": [0.9]}}, "optim.betas: expected 2 values, got 1"),
        ({"optim": {"betas": 0.9}}, "optim.betas: expected a list, got 0.9"),
        ({"optim": {"betas": "ab"}}, "optim.betas: expected a list, got 'ab'"),
        ({"optim": {"betas": [0.9, "x"]}}, "optim.betas[1]: expected a number, got 'x'"),
        ({"optim": {"lr": -1}}, "optim.lr: must be above 0, not -1.0"),
        ({"optim": {"lr": None}}, "optim.lr: expected a number, got None"),
        ({"optim": {"lr": True}}, "optim.lr: expected a number, got True"),
        ({"epochs": 3.0}, "epochs: expected a whole number, got 3.0"),
        ({"epochs": "3"}, "epochs: expected a whole number, got '3'"),
        ({"epochs": True}, "epochs: expected a whole number, got True"),
        ({"compiled": 1}, "compiled: expected true or false, got 1"),
        ({"network": 3}, "network: expected text, got 3"),
        ({"size": [224]}, "size: expected 2 values, got 1"),
        ({"size": [224, 1.5]}, "size[1]: expected a whole number, got 1.5"),
        ({"widths": [1, "a"]}, "widths[1]: expected a whole number, got 'a'"),
        ({"options": 3}, "options: expected a table, got 3"),
        ({"options": {"a": "b"}}, "options.a: expected a whole number, got 'b'"),
        ({"augment": 3}, "augment: expected a table of options, got 3"),
        ({"augment": {"scale": "a"}}, "augment.scale: expected a number, got 'a'"),
        ({"augment": {}}, "augment.scale: missing"),
    ],
)
def test_a_mistake_is_named_with_its_path(data: dict[str, Any], mistake: str) -> None:
    assert mistakes(**{"network": "a", **data}) == [mistake]


def test_several_mistakes_come_at_once() -> None:
    assert mistakes(epochs="a", optim={"nam": "sgd", "lr": "b"}, size=3) == [
        "epochs: expected a whole number, got 'a'",
        "optim.nam: no such option; did you mean name?",
        "optim.lr: expected a number, got 'b'",
        "size: expected a list, got 3",
        "network: missing",
    ]


def test_the_path_begins_where_it_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, {"optim": {"lr": 0}, "epoch": 1}, where="run.toml")
    assert str(caught.value).splitlines() == [
        "run.toml.optim.lr: must be above 0, not 0.0",
        "run.toml.epoch: no such option; did you mean epochs?",
        "run.toml.network: missing",
    ]
    with pytest.raises(ConfigError, match="the configuration: expected a table of options, got 3"):
        from_dict(Run, 3)  # type: ignore[arg-type]


def test_options_replace_values_and_are_checked() -> None:
    config = Run(network="a", epochs=3)
    assert with_options(config, {}) is config
    assert with_options(config, {"epochs": 4}) == Run(network="a", epochs=4)
    assert config.epochs == 3
    with pytest.raises(ConfigError, match=r"^a_run\.epoch: no such option; did you mean epochs"):
        with_options(config, {"epoch": 4}, where="a_run")


def test_checking_lets_values_be_missing_but_not_wrong() -> None:
    check(Run, {"epochs": 3, "augment": {}})
    with pytest.raises(ConfigError) as caught:
        check(Run, {"epochs": "a", "optim": {"lrr": 1}})
    assert str(caught.value).splitlines() == [
        "epochs: expected a whole number, got 'a'",
        "optim.lrr: no such option; did you mean lr?",
    ]


def test_ranges_name_every_field_outside() -> None:
    within(Run(network="a", epochs=10), 1, 10, "epochs")
    within(Run(network="a", epochs=10), 10, float("inf"), "epochs")
    with pytest.raises(ConfigError) as caught:
        within(Optim(lr=float("nan"), betas=(0, 1)), 0, 1, "lr")
    assert str(caught.value) == "lr: must be in 0 to 1, not nan"
    with pytest.raises(ConfigError, match="epochs: must be 11 or more, not 10"):
        within(Run(network="a", epochs=10), 11, float("inf"), "epochs")


def test_none_is_left_out_of_plain_data() -> None:
    plain = to_dict(Run(network="a", size=None))
    assert "size" not in plain
    assert "augment" not in plain
    assert plain["optim"] == {"name": "adamw", "lr": 1e-3, "betas": (0.9, 0.999)}


@given(
    st.builds(
        Run,
        network=st.text(),
        epochs=st.integers(),
        compiled=st.booleans(),
        size=st.none() | st.tuples(st.integers(), st.integers()),
        widths=st.lists(st.integers()).map(tuple),
        optim=st.builds(
            Optim,
            name=st.sampled_from(["adamw", "sgd"]),
            lr=st.floats(min_value=0, exclude_min=True),
            betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        ),
        options=st.dictionaries(st.text(), st.integers()),
        augment=st.none() | st.builds(Crop, scale=st.floats(0, 1)) | st.builds(Flip, chance=st.floats(0, 1)),
    )
)
def test_to_plain_data_and_back(config: Run) -> None:
    assert from_dict(Run, to_dict(config)) == config


@given(
    st.dictionaries(
        st.sampled_from(["network", "epochs", "size", "optim", "augment", "options"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_whatever_is_given_the_answer_is_a_run_or_a_config_error(data: dict[str, Any]) -> None:
    try:
        run = from_dict(Run, data)
    except ConfigError as error:
        assert ": " in str(error)
    else:
        assert isinstance(run.network, str)
        assert type(run.epochs) is int
        assert isinstance(run.optim, Optim)

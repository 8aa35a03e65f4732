"""The table of objectives is complete, and builds each from its options."""

import pytest

from birder.errors import UnknownName
from birder.objectives import configs
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig
from birder.objectives.methods import create_objective, objectives
from birder.testing import small_network


def test_every_objective_has_options_of_its_name():
    offered = [getattr(configs, name) for name in configs.__all__]
    named = {config.name: config for config in offered if isinstance(getattr(config, "name", None), str)}
    assert {name: config for name, (_, config) in objectives.items()} == named


def test_an_objective_takes_what_it_needs():
    config = ClassificationConfig(class_weights="inverse")
    objective = create_objective(config, small_network(3), class_counts=[1, 2, 3], class_to_idx={"a": 0})
    assert isinstance(objective, Classification)
    assert objective.config is config
    assert objective.labels.weights.tolist() == pytest.approx([2.0, 1.0, 2 / 3])


def test_a_name_that_does_not_exist_is_told():
    with pytest.raises(UnknownName, match="no objective is called 'clasification'; did you mean classification"):
        create_objective(configs.ObjectiveConfig(name="clasification"), small_network())

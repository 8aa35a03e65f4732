"""The table of objectives is complete, and builds each from its options."""

import pytest

from birder.errors import UnknownName
from birder.objectives.classification import Classification
from birder.objectives.configs import ClassificationConfig, ObjectiveConfig
from birder.objectives.methods import create_objective, objectives
from birder.testing import small_network


def test_every_objective_has_options_of_its_name():
    assert {name: config for name, (_, config) in objectives.items()} == {
        config.name: config for config in ObjectiveConfig.__subclasses__()
    }


def test_an_objective_takes_what_it_needs():
    config = ClassificationConfig(class_weights="inverse")
    objective = create_objective(config, small_network(3), class_counts=[1, 2, 3], class_to_idx={"a": 0})
    assert isinstance(objective, Classification)
    assert objective.config is config
    assert objective.labels.weights.tolist() == pytest.approx([2.0, 1.0, 2 / 3])


def test_a_name_that_does_not_exist_is_told():
    with pytest.raises(UnknownName, match="no objective is called 'clasification'; did you mean classification"):
        create_objective(ObjectiveConfig(name="clasification"), small_network())

"""Options of the objectives: ranges, and what goes with what."""

import pytest

from birder.config import from_dict
from birder.errors import ConfigError
from birder.objectives.configs import ClassificationConfig, DistillationConfig
from birder.training.recipe import Recipe

REFUSED = [
    ({"smoothing": 1.5}, "smoothing: must be in 0 to 1, not 1.5"),
    ({"logit_adjustment": -1.0}, "logit_adjustment: must be 0 or more, not -1.0"),
    ({"loss": "bce", "bce_threshold": 1.0}, "bce_threshold: must be at least 0 and below 1, not 1.0"),
    ({"class_weights": "effective", "effective_beta": 1.0}, "effective_beta: must be at least 0 and below 1, not 1.0"),
    ({"bce_threshold": 0.2, "bce_sum": True}, "bce_threshold: goes only with loss bce, not cross_entropy\n"
                                              "objective.bce_sum: goes only with loss bce, not cross_entropy"),
    ({"loss": "bce", "logit_adjustment": 1.0}, "logit_adjustment: goes only with loss cross_entropy, not bce"),
    ({"class_weights": "inverse", "effective_beta": 0.9},
     "effective_beta: goes only with class_weights effective, not inverse"),
    ({"class_weights": "inverse", "logit_adjustment": 1.0},
     "logit_adjustment: goes only with class_weights none, not inverse"),
    ({"name": "distillation"}, "teacher: missing"),
    ({"name": "distillation", "teacher": "t", "weight": 2.0}, "weight: must be in 0 to 1, not 2.0"),
    ({"name": "distillation", "teacher": "t", "temperature": 0.0}, "temperature: must be above 0, not 0.0"),
    ({"name": "distillation", "teacher": "t", "kind": "hard", "temperature": 2.0},
     "temperature: goes only with kind soft, not hard"),
    ({"name": "distillation", "teacher": "t", "bce_sum": True}, "bce_sum: goes only with loss bce, not cross_entropy"),
    ({"name": "distillation", "teacher": "t", "kind": "sofft"},
     "kind: 'sofft' is not one of soft, hard, deit, embedding; did you mean soft?"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message.split(":")[0] for _, message in REFUSED])
def test_what_does_not_fit_is_refused_with_its_path(options, message):
    with pytest.raises(ConfigError) as raised:
        from_dict(Recipe, {"data": "d", "objective": options})
    assert str(raised.value) == f"objective.{message}"


def test_what_fits_is_taken():
    weights = {"loss": "bce", "bce_threshold": 0.0, "bce_sum": True, "class_weights": "effective", "effective_beta": 0}
    recipe = from_dict(Recipe, {"data": "d", "objective": weights})
    assert recipe.objective == ClassificationConfig(
        loss="bce", bce_threshold=0.0, bce_sum=True, class_weights="effective", effective_beta=0.0
    )
    distilled = {"name": "distillation", "teacher": "model.pt", "mixup": 0.2, "logit_adjustment": 1.0}
    recipe = from_dict(Recipe, {"data": "d", "objective": distilled})
    assert recipe.objective == DistillationConfig(teacher="model.pt", mixup=0.2, logit_adjustment=1.0)

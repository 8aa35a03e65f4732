"""Recipes: written, read, checked, with every mistake told at once; and all of it without torch."""

import subprocess
import sys

import pytest

from birder.errors import ConfigError
from birder.objectives.configs import ClassificationConfig
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule, read_recipe, read_table, write_recipe


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_comes_back_as_it_was(tmp_path):
    recipe = Recipe(
        data="Vögel/train",
        size=(96, 128),
        network_options={"in_channels": (8, 8, 16, 16), "drop_path_rate": 0.5, "head_bias": False},
        objective=ClassificationConfig(mixup=0.2),
        augment=Augment(policy="none"),
        optim=Optim(name="muon", lr=0.01),
        schedule=Schedule(warmup_epochs=0.5),
        run=Run(seed=4, dtype="float32"),
    )
    write_recipe(tmp_path / "r.toml", recipe)
    assert read_recipe(tmp_path / "r.toml") == recipe


def test_one_number_is_a_square(tmp_path):
    assert Recipe(data="x", size=(64,)).size == (64, 64)
    assert read_recipe(write(tmp_path, 'data = "x"\nsize = 64')).size == (64, 64)


MISTAKES = """
epochz = 3
size = "big"
network_optoins = { drop_path_rate = 0.1 }
[objective]
smothing = 0.2
[optim]
lr = "fast"
name = "adamv"
clip = -1
[run]
dtype = "bfloat"
seed = true
[schedule]
warmup = 3
"""


def test_ten_mistakes_give_ten_lines(tmp_path):
    with pytest.raises(ConfigError) as raised:
        read_recipe(write(tmp_path, MISTAKES))
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{tmp_path / 'recipe.toml'}:"
    assert lines[1:] == [
        "epochz: no such option; did you mean epochs?",
        "size[0]: expected a whole number, got 'big'",
        "network_optoins: no such option; did you mean network_options, network?",
        "objective.smothing: no such option; did you mean smoothing?",
        "optim.lr: expected a number, got 'fast'",
        "optim.name: 'adamv' is not one of adamw, adam, nadam, rmsprop, sgd, lamb, lars, muon; "
        "did you mean adam, nadam, adamw?",
        "run.dtype: 'bfloat' is not one of auto, float32, bfloat16, float16; did you mean bfloat16, float32, float16?",
        "run.seed: expected a whole number, got True",
        "schedule.warmup: no such option; did you mean warmup_epochs?",
        "data: missing",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlr = -1.0", r"optim\.lr: must be in 0 to 1e\+06, not -1\.0"),
        ("[optim]\nmomentum = 1.0", r"optim\.momentum: must be at least 0 and below 1, not 1\.0"),
        ("[augment]\nmin_scale = 0.0", r"augment\.min_scale: must be above 0 and at most 1, not 0\.0"),
        ("[augment]\nflip = 2", r"augment\.flip: must be in 0 to 1, not 2\.0"),
        ("[objective]\nmixup = -0.1", r"objective\.mixup: must be 0 or more, not -0\.1"),
        ("[schedule]\nfinal_lr = 1.5", r"schedule\.final_lr: must be in 0 to 1, not 1\.5"),
        ("[optim]\nlr = inf", r"optim\.lr: must be in 0 to 1e\+06, not inf"),
        (
            "epochs = 2\n[schedule]\nwarmup_epochs = 3",
            r"schedule\.warmup_epochs: warmup_epochs 3 must be at most epochs, 2",
        ),
        ("[run]\nseed = 99999999999999999999", r"run\.seed: must be in 0 to"),
        ("[schedule]\ncooldown_epochs = 5.0", r"schedule\.cooldown_epochs: cosine with final_lr 0 leaves nothing"),
        ("[average]\ndecay = 1.0", r"average\.decay: must be at least 0 and below 1, not 1\.0"),
        ("[optim]\nlayer_decay = 0.0", r"optim\.layer_decay: must be above 0 and at most 1, not 0\.0"),
        ("[optim]\nname = 'lars'\nbeta2 = 0.9", r"optim\.beta2: lars has no such option; leave it out"),
        ("[schedule]\nstep_epochs = [30.0, 20.0]", r"schedule\.step_epochs: must be above 0 and rise"),
        ("freeze = -1", r"freeze: must be 0 or more, not -1"),
        ('rgb = "start"', r"rgb: there is no start"),
        ("balance = 1.5", r"balance: must be in 0 to 1, not 1\.5"),
        ("[run]\nworkers = -1", r"run\.workers: must be in 0 to 4096, not -1"),
    ],
)
def test_values_out_of_range_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, f'data = "x"\n{text}'))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": (1, 2, 3)}, "size"), ({"size": (0,)}, "size"), ({"epochs": 0}, "epochs"), ({"batch_size": 0}, "batch")],
)
def test_the_same_ranges_hold_in_python(options, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(data="x", **options)


def test_a_table_may_leave_some_to_the_command_line(tmp_path):
    assert read_table(write(tmp_path, "epochs = 3")) == {"epochs": 3}
    with pytest.raises(ConfigError, match="data: missing"):
        read_recipe(write(tmp_path, "epochs = 3"))


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        read_recipe(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="is no TOML file"):
        read_recipe(write(tmp_path, "epochs = = 3"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no TOML file"):
        read_recipe(tmp_path / "binary.toml")


def test_reading_a_recipe_needs_no_torch():
    code = "import sys, birder.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

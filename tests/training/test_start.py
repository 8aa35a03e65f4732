"""Where a run begins: what is taken from a model file, what is new, and what is frozen; in numbers."""

import hashlib
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from birder.data.augment import training_transform
from birder.data.drawn import DrawnBirds, write_folder
from birder.data.loader import TrainingSet, training_batches
from birder.data.order import batches
from birder.data.samples import read_samples
from birder.data.transforms import classification_transform
from birder.errors import ConfigError, ModelFileError, WeightsMismatch
from birder.layers.position import resample_positions
from birder.model_file import load_model, read_model, save_model, write_model
from birder.networks import create_network
from birder.objectives.classification import class_weights, log_shares
from birder.objectives.configs import ClassificationConfig
from birder.signature import PRESETS
from birder.training import start as start_module
from birder.training.checkpoints import Checkpoints
from birder.training.fit import fit
from birder.training.recipe import Augment, Average, Optim, Recipe, Run, Schedule
from birder.training.start import Start
from tests.loopback import add_to_catalogue

SPECIES = {"a": 0, "b": 1, "c": 2}
OTHERS = {"d": 0, "e": 1, "f": 2}
VIT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
SMALL = {
    "convnext_v2_atto": {"in_channels": (8, 8, 16, 16), "num_layers": (1, 1, 1, 1)},
    "vit_t16": VIT,
    "vit_reg1_t16": VIT,
    "regnet_y_200m": {"depth": 6, "w_0": 8, "w_a": 8.0, "w_m": 2.0, "group_width": 8},
}
HERE = Run(device="cpu", dtype="float32", threads=1, workers=0)


def a_model(path, name="convnext_v2_atto", species=SPECIES, *, channels=3, colours=PRESETS["clip"], size=(32, 32)):
    """A network with not one weight at zero, and its file."""
    network = create_network(name, len(species), input_channels=channels, size=size, **SMALL[name])
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) * 0.4 + 0.1)
    save_model(path, network, class_to_idx=species, rgb_stats=colours)
    return network.eval()


def begin(path, species=SPECIES, **options):
    start = Start(Recipe(data="", start=str(path), **options))
    return start, start.network(species)


def of_body(network):
    return {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture
def path(tmp_path):
    return tmp_path / "start.safetensors"


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "birder")
    return caplog


# What is taken.


def test_the_same_species_keep_their_classifier(path, log):
    network, images = a_model(path), torch.randn(2, 3, 32, 32)
    start, begun = begin(path)
    assert begun.training and all(weight.requires_grad for weight in begun.parameters())
    assert torch.equal(begun.eval()(images), network(images))
    assert (start.recipe.network, start.recipe.size, start.recipe.rgb) == ("convnext_v2_atto", (32, 32), "start")
    assert start.rgb_stats == PRESETS["clip"]
    assert log.messages == []


@pytest.mark.parametrize(
    "species", [OTHERS, {"a": 0, "b": 1}, {"c": 0, "b": 1, "a": 2}], ids=["others", "fewer", "another order"]
)
@pytest.mark.parametrize("strict", [True, False])
def test_other_species_get_a_new_classifier_and_nothing_else(path, log, species, strict):
    network = a_model(path)
    _, begun = begin(path, species, start_strict=strict)
    assert_equal(of_body(begun), of_body(network))
    assert begun.classifier.weight.shape == (len(species), 16)
    assert begun.classifier.weight.abs().max() < 0.1, "those of the file are all larger"
    assert log.messages == [f"{path}: a new classifier, for {len(species)} species"]


def test_a_network_without_a_classifier_gets_one(path):
    network = a_model(path, species={})
    _, begun = begin(path)
    assert_equal(of_body(begun), of_body(network))
    assert begun(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("strict", [True, False])
def test_positions_are_resampled_to_the_size_of_the_run(path, strict):
    network = a_model(path, "vit_t16")
    start, begun = begin(path, size=(64, 48), start_strict=strict)
    assert begun.size == start.recipe.size == (64, 48)
    expected = resample_positions(network.pos_embedding, (2, 2), (4, 3), special=1, antialias=True)
    assert torch.equal(begun.pos_embedding, expected)
    resized, _ = load_model(path, size=(64, 48))
    images = torch.randn(2, 3, 64, 48)
    assert torch.equal(begun.eval()(images), resized(images))


@pytest.mark.parametrize("strict", [True, False])
def test_a_network_of_gray_pictures_takes_coloured_ones(path, strict):
    """A third of the weight for each colour: a picture without colour gives what it gave."""
    network = a_model(path, channels=1, colours=PRESETS["imagenet"])
    _, begun = begin(path, start_strict=strict)
    gray = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(begun.eval()(gray.expand(-1, 3, -1, -1)), network(gray), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [True, False])
def test_a_network_of_four_channels_takes_three(path, strict):
    network = a_model(path, channels=4)
    _, begun = begin(path, start_strict=strict)
    name = next(name for name, weight in network.state_dict().items() if weight.ndim == 4 and weight.shape[1] == 4)
    torch.testing.assert_close(begun.state_dict()[name], network.state_dict()[name][:, :3] * 4 / 3)
    assert begun(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def test_options_of_the_recipe_replace_those_of_the_file_and_leave_the_others(path):
    network = a_model(path)
    _, begun = begin(path, network_options={"drop_path_rate": 0.375})
    assert begun.config.drop_path_rate == 0.375
    assert begun.config.in_channels == (8, 8, 16, 16)
    assert_equal(begun.state_dict(), network.state_dict())


def test_another_network_than_that_of_the_file_is_refused(path):
    a_model(path)
    message = re.escape(
        f"network: {path} holds convnext_v2_atto, not vit_t16; leave network out, or take over what fits with "
        "start_strict = false"
    )
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Start(Recipe(data="", start=str(path), network="vit_t16", network_options={"num_heads": 2}))
    Start(Recipe(data="", start=str(path), network="ConvNeXt_v2_Atto"))


def test_the_recipe_names_the_network_that_a_file_does_not(path):
    """So do files of other packages; see also ``birder.model_file``, for names of files that tell it."""
    network = a_model(path)
    write_model(path, replace(read_model(path), network=None))
    for strict in (True, False):
        _, begun = begin(path, network="convnext_v2_atto", start_strict=strict, network_options=SMALL[network.name])
        assert_equal(begun.state_dict(), network.state_dict())
    with pytest.raises(ModelFileError, match="does not say which network it holds: name it"):
        begin(path)
    with pytest.raises(ConfigError, match=r"^network: .* does not say which network it holds; name the one to train$"):
        begin(path, start_strict=False)


# Taking what fits.


def test_what_fits_is_taken_and_the_rest_is_listed(path, log):
    """A register more: its token is new, and so is the table of positions, which has a row for it."""
    network = a_model(path, "vit_t16")
    _, begun = begin(path, network="vit_reg1_t16", start_strict=False, network_options=VIT)
    fits = network.state_dict().keys() - {"pos_embedding"}
    assert_equal({name: begun.state_dict()[name] for name in fits}, {name: network.state_dict()[name] for name in fits})
    assert log.messages == [
        f"{path}: 1 weights are left out: pos_embedding",
        f"{path}: 2 weights are new: pos_embedding, reg_tokens",
    ]


def test_what_fits_is_taken_in_the_size_of_the_file(path, log):
    """A table of positions without a row for the register fits, and is resampled with the network."""
    network = a_model(path, "vit_t16")
    shared = {**VIT, "pos_embed_special_tokens": False}
    other = create_network("vit_t16", 3, size=(32, 32), **shared)
    other.load_state_dict({**network.state_dict(), "pos_embedding": network.pos_embedding[:, 1:]})
    save_model(path, other, class_to_idx=SPECIES, rgb_stats=PRESETS["clip"])
    _, begun = begin(path, network="vit_reg1_t16", start_strict=False, network_options=shared, size=(64,))
    expected = resample_positions(other.pos_embedding, (2, 2), (4, 4), antialias=True)
    assert torch.equal(begun.pos_embedding, expected)
    assert log.messages == [f"{path}: 1 weights are new: reg_tokens"]


def test_without_another_network_the_file_says_how_its_own_is_built(path, log):
    network = a_model(path)
    _, begun = begin(path, start_strict=False, network_options={"mlp_head": True})
    assert begun.config.in_channels == (8, 8, 16, 16)
    assert_equal(of_body(begun), of_body(network))
    assert [line.split(": ", 2)[1] for line in log.messages] == ["2 weights are left out", "6 weights are new"]


def test_nothing_that_fits_is_an_error_also_with_as_many_species(path):
    """The bias of a classifier fits wherever there are as many species, and says nothing."""
    a_model(path)
    with pytest.raises(WeightsMismatch, match=r"not one of its \d+ weights fits vit_t16; name the network"):
        begin(path, network="vit_t16", start_strict=False, network_options=VIT)


def older_names(state):
    """As the transformers of torch had it, before 0.4."""
    rules = ((r"\.norm(\d)\.", r".ln\1."), (r"\.attn\.qkv\.", ".self_attention.in_proj_"))
    rules += ((r"\.attn\.proj\.", ".self_attention.out_proj."),)
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("strict", [True, False])
def test_names_of_older_files_are_translated(path, strict):
    network = a_model(path, "vit_t16")
    file = read_model(path)
    state = older_names(file.state)
    assert len(state.keys() - file.state.keys()) == 2 * 8
    write_model(path, replace(file, state=state, birder_version="v0.3.0"))
    _, begun = begin(path, start_strict=strict)
    assert_equal(begun.state_dict(), network.state_dict())


# Colours.


def test_colours_are_those_of_the_start_unless_others_are_named(path):
    a_model(path)
    assert begin(path, rgb="start")[0].rgb_stats == PRESETS["clip"]
    start, _ = begin(path, rgb="birder")
    assert (start.recipe.rgb, start.rgb_stats) == ("birder", PRESETS["birder"])
    assert Start(Recipe(data="")).rgb_stats == PRESETS["imagenet"]


def test_colours_of_other_channels_are_no_colours_of_pictures(path):
    a_model(path, channels=4, colours={"mean": (0.1, 0.2, 0.3, 0.4), "std": (0.5, 0.5, 0.5, 0.5)})
    start, _ = begin(path)
    assert (start.recipe.rgb, start.rgb_stats) == ("imagenet", PRESETS["imagenet"])
    with pytest.raises(ConfigError, match=r"^rgb: .* has colour statistics of 4 channels, and pictures have 3"):
        begin(path, rgb="start")


# Names, and starts that are gone.


def test_a_published_model_by_its_name(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("BIRDER_HOME", str(home))
    monkeypatch.setenv("BIRDER_OFFLINE", "1")
    (home / "models").mkdir(parents=True)
    path = home / "models" / "wren.pt"
    network = a_model(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    add_to_catalogue(home, "wren", sha256=digest, mib=path.stat().st_size / 2**20, url="https://example.org")
    start, begun = begin("wren")
    assert_equal(begun.state_dict(), network.state_dict())
    assert (start.recipe.start, start.recipe.network) == ("wren", "convnext_v2_atto")
    with pytest.raises(ConfigError, match="wren holds convnext_v2_atto, not vit_t16"):
        begin("wren", network="vit_t16")


@pytest.mark.parametrize("strict", [True, False])
def test_a_run_that_goes_on_needs_no_start(path, strict):
    """Only the form counts, as the weights are in the checkpoint: the same names and shapes, in the same order."""
    a_model(path, "vit_t16", OTHERS, channels=1)
    options = {"start_strict": strict, "size": (64, 64), "network_options": {"drop_path_rate": 0.25}, "freeze": 0}
    start, begun = begin(path, **options)
    path.unlink()
    with pytest.raises(ModelFileError, match=f"{path}: no such file"):
        begin(path, **options)
    again = Start(Recipe(data="", start=str(path), **options), json.loads(json.dumps(start.state_dict())))
    assert replace(again.recipe, size=(64, 64)) == start.recipe
    assert {name: tuple(values) for name, values in again.rgb_stats.items()} == start.rgb_stats
    network = again.network(SPECIES)
    assert [(name, weight.shape, weight.requires_grad) for name, weight in network.named_parameters()] == [
        (name, weight.shape, weight.requires_grad) for name, weight in begun.named_parameters()
    ]
    assert network.config == begun.config


# Through a whole run.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the first species 12 pictures, of the second 6, of the third 3."""
    folder = tmp_path_factory.mktemp("drawn")
    write_folder(DrawnBirds(families=3, species=3, size=(40, 40)), folder, 12)
    for species, count in zip(sorted(path for path in folder.iterdir() if path.is_dir()), (12, 6, 3), strict=True):
        for picture in sorted(species.iterdir())[count:]:
            picture.unlink()
    return folder


def recipe_for(folder, **options):
    recipe = Recipe(
        data=str(folder),
        size=(32,),
        epochs=1,
        batch_size=7,
        augment=Augment(policy="none", min_scale=0.7),
        optim=Optim(name="sgd", lr=0.05),
        schedule=Schedule(warmup_epochs=0.0),
        run=HERE,
    )
    return replace(recipe, **options)


def checkpoint(out):
    (newest, *_) = Checkpoints(out / "checkpoints", keep=2).paths()
    return torch.load(newest, weights_only=True)


def test_the_colours_of_the_start_go_into_the_result(folder, path, tmp_path):
    a_model(path, species=OTHERS)
    assert read_model(fit(recipe_for(folder, start=str(path)), tmp_path / "a").model).rgb_stats == PRESETS["clip"]
    fitted = fit(recipe_for(folder, start=str(path), rgb="birder"), tmp_path / "b")
    assert read_model(fitted.model).rgb_stats == PRESETS["birder"]


@pytest.mark.parametrize(("freeze", "prefixes"), [(0, ("stem",)), (1, ("stem", "body.stage1")), ("network", ("",))])
def test_what_is_frozen_stays_to_the_last_bit(folder, path, tmp_path, freeze, prefixes):
    """Weights, and the statistics of the batch norms among them; what is behind them learns."""
    network = a_model(path, "regnet_y_200m", species=OTHERS)
    recipe = recipe_for(folder, start=str(path), freeze=freeze, average=Average(decay=0.5))
    fitted = fit(recipe, tmp_path / "run")
    before, after = of_body(network), of_body(load_model(fitted.model)[0])
    frozen = {name for name in before if name.startswith(prefixes)}
    assert any("running_mean" in name for name in frozen)
    assert_equal({name: before[name] for name in frozen}, {name: after[name] for name in frozen})
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == before.keys() - frozen

    state = checkpoint(tmp_path / "run")["engine"]
    held = sum(len(group["params"]) for group in state["optimizers"][0]["param_groups"])
    assert held == len({name for name, _ in network.named_parameters()} - frozen)


def test_a_linear_probe_is_a_classifier_trained_alone(folder, path, tmp_path):
    """Against a plain loop: embeddings of the untouched network, one linear layer, SGD written out."""
    network = a_model(path, species=OTHERS)
    optim = Optim(name="sgd", lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0, clip=0.0)
    objective = ClassificationConfig(smoothing=0.0)
    recipe = recipe_for(
        folder,
        start=str(path),
        freeze="network",
        epochs=3,
        optim=optim,
        objective=objective,
        run=replace(HERE, log_every=1),
    )
    fitted = fit(recipe, tmp_path / "run")

    torch.manual_seed(0)
    start = Start(recipe)
    samples = read_samples(folder)
    classifier = start.network(samples.class_to_idx).classifier
    normalize = classification_transform((32, 32), PRESETS["clip"]).normalize
    training = TrainingSet(samples, training_transform((32, 32), recipe.augment), seed=0)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["kind"] == "steps"]
    for rate, pictures in zip(rates, training_batches(training, batch_size=7, start=0, stop=9), strict=True):
        with torch.no_grad():
            embeddings = network.embedding(normalize(pictures.images))
        loss = F.cross_entropy(classifier(embeddings), pictures.labels)
        for weight, gradient in zip(
            classifier.parameters(), torch.autograd.grad(loss, list(classifier.parameters())), strict=True
        ):
            weight.data -= rate * gradient
    trained = load_model(fitted.model)[0].classifier
    torch.testing.assert_close(trained.weight, classifier.weight.detach(), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(trained.weight, start.network(samples.class_to_idx).classifier.weight, atol=1e-3)


def test_a_start_that_is_gone_does_not_stop_a_run(folder, path, tmp_path):
    """Colours of no preset, a form that the file alone knows: all of it is in the checkpoint."""
    colours = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    a_model(path, "vit_t16", OTHERS, colours=colours)
    recipe = recipe_for(folder, start=str(path), epochs=2, size=(48,))
    whole = fit(recipe, tmp_path / "whole")
    fit(recipe, tmp_path / "run")
    (newest, _) = Checkpoints(tmp_path / "run" / "checkpoints", keep=2).paths()
    for written in (newest, tmp_path / "run" / "last.safetensors", tmp_path / "run" / "best.safetensors"):
        written.unlink()
    path.unlink()
    fitted = fit(recipe, tmp_path / "run")
    assert_equal(load_file(fitted.model), load_file(whole.model))
    assert read_model(fitted.model).rgb_stats == colours


# Long tails.


@pytest.mark.parametrize(
    ("balance", "counts"), [(0.0, [12, 6, 3]), (1.0, [7, 7, 7]), (0.5, [10, 7, 5])], ids=["as is", "even", "root"]
)
def test_the_objective_learns_how_often_each_species_is_shown(folder, tmp_path, monkeypatch, balance, counts):
    """21 pictures in an epoch; half-way, they are shared as the roots of 12, 6 and 3 are: 9.5, 6.7 and 4.8."""
    given, create = {}, start_module.create_objective

    def spy(*arguments, **facts):
        given.update(facts)
        return create(*arguments, **facts)

    monkeypatch.setattr(start_module, "create_objective", spy)
    options = ClassificationConfig(class_weights="inverse")
    fit(
        recipe_for(folder, balance=balance, objective=options, network_options=SMALL["convnext_v2_atto"]),
        tmp_path / "r",
    )
    exact = np.array([12, 6, 3]) ** (1 - balance)
    exact = exact / exact.sum() * 21
    assert given["class_counts"] == counts == [round(value) for value in exact]

    samples = read_samples(folder)
    shown = np.zeros(3)
    for step in batches(21, 7, seed=0, start=0, stop=3 * 200, balance=balance, labels=samples.labels):
        shown += np.bincount(samples.labels[[key.sample for key in step]], minlength=3)
    assert np.abs(shown / 200 - exact).max() <= 0.05


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_weights_and_margins_are_of_these_counts(folder, balance):
    samples = read_samples(folder)
    counts = torch.tensor([12, 6, 3] if balance == 0 else [7, 7, 7])

    def objective(config):
        start = Start(recipe_for(folder, balance=balance, objective=config, network_options=SMALL["convnext_v2_atto"]))
        return start.objective(start.network(samples.class_to_idx), samples)

    labels = objective(ClassificationConfig(class_weights="effective", effective_beta=0.9)).labels
    torch.testing.assert_close(labels.weights, class_weights(counts, 0.9).float())
    labels = objective(ClassificationConfig(logit_adjustment=1.0)).labels
    torch.testing.assert_close(labels.margins, log_shares(counts).float())
    if balance == 0:
        torch.testing.assert_close(labels.margins, torch.tensor([12 / 21, 6 / 21, 3 / 21]).log())

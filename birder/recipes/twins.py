"""The chains of ``birder.recipes.cards`` at toy scale: the same stages on drawn birds, each in minutes on two cores.

They show that every stage does what it is for, and are run by ``make twins``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from birder.data.drawn import DrawnBirds, write_folder
from birder.files import write_text
from birder.objectives.configs import Data2VecConfig, MAEConfig, MMCRConfig
from birder.recipes.chain import Stage
from birder.training.recipe import Augment, Optim, Recipe, Run, Schedule

WORLD = DrawnBirds(families=6, species=30, size=(96, 96), difficulty=0.4)
"""All species that there are."""
NATIVE = slice(0, None, 3)
"""Which of them live in the region."""
MANY = 60
"""Pictures of each species to learn from without labels, or in intermediate training."""
FEW = 6
"""Labelled pictures of each species of the region."""
UNSEEN = 30
"""Pictures of each of these to validate on."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Drawn birds, as CSV files."""

    everything: Path
    """Many pictures of all species."""
    abroad: Path
    """Those of them that show species from elsewhere."""
    few: Path
    """A few pictures of the species of the region."""
    unseen: Path
    """Other pictures of these, to validate on."""


def draw(folder: Path, *, workers: int = 1) -> Tables:
    """Draw the birds: 3,000 pictures, in a minute."""
    pictures = {
        split: write_folder(WORLD, folder / split, number, split=split, workers=workers)
        for split, number in (("many", MANY), ("few", FEW), ("unseen", UNSEEN))
    }
    names = {species.name for species in WORLD.species_list}
    native = {species.name for species in WORLD.species_list[NATIVE]}
    wanted = {
        "everything": ("many", names),
        "abroad": ("many", names - native),
        "few": ("few", native),
        "unseen": ("unseen", native),
    }
    tables = {}
    for table, (split, species) in wanted.items():
        tables[table] = folder / f"{table}.csv"
        rows = [(path.relative_to(folder), path.parent.name) for path in pictures[split] if path.parent.name in species]
        write_text(tables[table], "path,label\n" + "".join(f"{path},{name}\n" for path, name in rows))
    return Tables(**tables)


_BASE = Recipe(
    data="",
    size=(64, 64),
    augment=Augment(policy="none", min_scale=0.5),
    # The operations are too small for more threads.
    run=Run(device="cpu", dtype="float32", threads=1, workers=1, validate_every=1000, save_minutes=60.0),
)


def pvt_v2_b2_mmcr(tables: Tables) -> list[Stage]:
    """MMCR, a probe, fine-tuning."""
    mmcr = _unlabelled(
        tables,
        network="pvt_v2_b0",
        network_options={"embed_dims": (16, 32, 80, 128), "depths": (1, 1, 2, 1), "drop_path_rate": 0.0},
        epochs=20,
        batch_size=64,
        objective=MMCRConfig(projector=(256, 256, 64)),
        augment=Augment(policy="birder", level=4),
        optim=Optim(lr=2e-3, beta2=0.95),
    )
    return [Stage(name="mmcr", purpose="Views agree, pictures differ.", recipe=mmcr), *_to_the_region(tables)]


def convnext_v2_tiny_intermediate(tables: Tables) -> list[Stage]:
    """Species from elsewhere, a probe, fine-tuning."""
    options = {"in_channels": (24, 48, 96, 192), "num_layers": (1, 1, 3, 1)}
    abroad = _from_abroad(tables, network="convnext_v2_atto", network_options=options)
    return [abroad, *_to_the_region(tables)]


def regnet_y_8g_intermediate(tables: Tables) -> list[Stage]:
    """Species from elsewhere, the same with larger pictures, a probe, fine-tuning."""
    options = {"depth": 8, "w_0": 24, "w_a": 24.0, "w_m": 2.0, "group_width": 8}
    abroad = _from_abroad(tables, network="regnet_y_200m", network_options=options, size=(48, 48))
    return [abroad, _larger(abroad), *_to_the_region(tables)]


def vit_l16_mim(tables: Tables) -> list[Stage]:
    """MAE, a short probe, fine-tuning.

    Plain pixels are drawn, so that the error can be compared with that of the mean picture. The embedding is the mean
    of the patches, as so short a pretraining teaches the class token nothing.
    """
    options = {"patch_size": 8, "num_layers": 4, "num_heads": 4, "hidden_dim": 96, "mlp_dim": 384}
    mae = _unlabelled(
        tables,
        network="vit_t16",
        network_options={**options, "class_token": False, "drop_path_rate": 0.0},
        epochs=30,
        batch_size=32,
        objective=MAEConfig(decoder_depth=2, decoder_width=64, normalized_targets=False),
        optim=Optim(lr=2e-3, beta2=0.95),
    )
    drawing = Stage(name="mae", purpose="Draw three quarters of a picture.", recipe=mae)
    return [drawing, *_to_the_region(tables, probe=5)]


def vit_parallel_data2vec(tables: Tables) -> list[Stage]:
    """data2vec, species from elsewhere at two sizes, a probe, fine-tuning."""
    options = {
        "patch_size": 8,
        "num_layers": 3,
        "num_heads": 4,
        "hidden_dim": 96,
        "mlp_dim": 192,
        "drop_path_rate": 0.0,
    }
    data2vec = _unlabelled(
        tables,
        network="vit_parallel_s16_18x2_ls_avg",
        network_options=options,
        epochs=15,
        batch_size=32,
        objective=Data2VecConfig(min_masked=8, top_layers=3, momentum=(0.95, 0.999)),
        optim=Optim(lr=2e-3, beta2=0.95),
    )
    telling = Stage(name="data2vec", purpose="Say what a teacher makes of hidden patches.", recipe=data2vec)
    abroad = _from_abroad(tables, size=(48, 48))
    return [telling, abroad, _larger(abroad), *_to_the_region(tables)]


def _from_abroad(tables: Tables, **choices: Any) -> Stage:
    recipe = replace(
        _BASE,
        data=str(tables.abroad),
        epochs=12,
        batch_size=32,
        optim=Optim(lr=2e-3),
        schedule=Schedule(warmup_epochs=1.0),
        **choices,
    )
    return Stage(name="intermediate", purpose="Species from elsewhere.", recipe=recipe)


def _larger(abroad: Stage) -> Stage:
    recipe = replace(abroad.recipe, network=None, network_options={}, size=_BASE.size, epochs=4)
    return Stage(name="larger", purpose="The last epochs, with larger pictures.", recipe=recipe)


def _unlabelled(tables: Tables, epochs: int, **choices: Any) -> Recipe:
    schedule = Schedule(warmup_epochs=epochs / 10)
    return replace(
        _BASE, data=str(tables.everything), val=str(tables.unseen), epochs=epochs, schedule=schedule, **choices
    )


def _to_the_region(tables: Tables, *, probe: int = 20) -> list[Stage]:
    """A probe and fine-tuning on a few pictures."""
    few = replace(_BASE, data=str(tables.few), val=str(tables.unseen), batch_size=20)
    still = replace(few, freeze="network", epochs=probe, optim=Optim(lr=5e-3), schedule=Schedule(warmup_epochs=1.0))
    tuning = replace(few, epochs=40, optim=Optim(lr=1e-3), schedule=Schedule(warmup_epochs=4.0))
    return [
        Stage(name="probe", purpose="A classifier on the frozen network.", recipe=still),
        Stage(name="fine-tuning", purpose="All of the network.", recipe=tuning),
    ]

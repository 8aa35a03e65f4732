"""How the five published models of the model cards came about, stage by stage, as recipes that train the same again.

The exact commands behind the published files are recorded nowhere. Networks, objectives, order and the size of the last
stage are those of the cards; batches, learning rates, decays and epochs are those that the documentation of the time
gave for the same stage of the same network, or where it gave none, for its nearest relative, which the stage then says.
Batches are those of two GPUs together, as it gave them; none of the stages has been run at full size by us. Costs are
counted operations, forward and backward, of all epochs over a million pictures, at 100 TFLOP/s, which is some 40 % of
what a data-centre GPU of 2022 does in bfloat16. ``birder.recipes.twins`` has the same chains at toy scale.

``data`` is a set of pictures without labels, ``world`` a labelled one of many species, ``region`` and ``val`` labelled
ones of the species of the region; see ``birder.data.samples``.
"""

from dataclasses import replace

from birder.objectives.configs import ClassificationConfig, Data2VecConfig, MAEConfig, MMCRConfig
from birder.recipes.chain import Stage
from birder.training.recipe import Augment, Average, Optim, Recipe, Run, Schedule

_GPU = Run(device="cuda", dtype="bfloat16", compile=True, workers=12)
_MIXED = ClassificationConfig(mixup=0.8, cutmix=1.0)
_STRONG = Augment(policy="birder", level=8)
_AVERAGE = Average(decay=0.9998, warmup_epochs=5.0)
_FOR_LABELS = Recipe(data="", objective=_MIXED, augment=_STRONG, schedule=Schedule(warmup_epochs=5.0), run=_GPU)
"""What the supervised stages have in common."""
_PROBE = replace(
    _FOR_LABELS,
    freeze="network",
    epochs=10,
    objective=ClassificationConfig(),
    augment=Augment(policy="birder", level=2),
    schedule=Schedule(warmup_epochs=1.0),
)
_PROBE_PURPOSE = "A classifier for the species of the region on the frozen network, so that fine-tuning starts well."


def convnext_v2_tiny_intermediate(world: str, region: str, val: str | None = None) -> list[Stage]:
    """ConvNeXt v2 tiny: all species of some continents, then those of a region (il-common, 371 species)."""
    intermediate = replace(
        _FOR_LABELS,
        data=world,
        network="convnext_v2_tiny",
        size=(256, 256),
        epochs=100,
        batch_size=512,
        optim=Optim(lr=8e-4),
        schedule=Schedule(warmup_epochs=10.0, final_lr=1e-5),
    )
    probe = replace(_PROBE, data=region, val=val, size=(256, 256), batch_size=256, optim=Optim(lr=2e-4))
    tuning = replace(
        _FOR_LABELS,
        data=region,
        val=val,
        size=(256, 256),
        epochs=80,
        batch_size=128,
        repeats=2,
        optim=Optim(lr=1e-4, layer_decay=0.99),
        average=_AVERAGE,
    )
    return [
        Stage(
            name="intermediate",
            purpose="Learn birds from some 4,000 species of Asia, Europe and eastern Africa, in shards.",
            cost="28 GPU hours",
            recipe=intermediate,
        ),
        Stage(name="probe", purpose=_PROBE_PURPOSE, cost="0.3 GPU hours", recipe=probe),
        Stage(
            name="fine-tuning",
            purpose="All of the network, to the species of the region; each picture twice in a batch.",
            cost="22 GPU hours",
            recipe=tuning,
        ),
    ]


def pvt_v2_b2_mmcr(data: str, region: str, val: str | None = None) -> list[Stage]:
    """PVT v2 B2: MMCR on the pictures of a region without labels, then its species (il-all, 550)."""
    mmcr = Recipe(
        data=data,
        network="pvt_v2_b2",
        size=(224, 224),
        epochs=100,
        batch_size=256,
        objective=MMCRConfig(),
        augment=Augment(policy="birder", level=4),
        optim=Optim(lr=5e-4, weight_decay=1e-6, beta2=0.95),
        schedule=Schedule(warmup_epochs=10.0),
        run=_GPU,
    )
    level = Augment(policy="birder", level=4)
    probe = replace(_PROBE, data=region, val=val, size=(256, 256), batch_size=256, augment=level, optim=Optim(lr=2e-4))
    tuning = replace(
        _FOR_LABELS,
        data=region,
        val=val,
        size=(384, 384),
        epochs=80,
        batch_size=128,
        repeats=2,
        optim=Optim(lr=2e-4, layer_decay=0.9),
        average=_AVERAGE,
    )
    return [
        Stage(
            name="mmcr",
            purpose="Views of a picture agree, pictures differ. The choices were given for PVT v2 B1.",
            cost="101 GPU hours",
            recipe=mmcr,
        ),
        Stage(name="probe", purpose=_PROBE_PURPOSE, cost="0.3 GPU hours", recipe=probe),
        Stage(
            name="fine-tuning",
            purpose="All of the network, to the species of the region. Rate and decay are those of ConvNeXt v2.",
            cost="114 GPU hours",
            recipe=tuning,
        ),
    ]


def regnet_y_8g_intermediate(world: str, region: str, val: str | None = None) -> list[Stage]:
    """RegNet Y 8G: all species of two continents at two sizes, then those of a region (eu-common, 707 species)."""
    sgd = Optim(name="sgd", lr=0.4, weight_decay=5e-5, vector_decay=5e-5)
    common = replace(_FOR_LABELS, objective=ClassificationConfig(mixup=0.2, cutmix=1.0), optim=sgd)
    gentle = replace(sgd, lr=0.04)
    intermediate = replace(
        common,
        data=world,
        network="regnet_y_8g",
        size=(256, 256),
        epochs=80,
        batch_size=256,
        schedule=Schedule(warmup_epochs=5.0, final_lr=0.1),
    )
    larger = replace(
        common,
        data=world,
        size=(384, 384),
        epochs=20,
        batch_size=128,
        optim=gentle,
        schedule=Schedule(warmup_epochs=0.0),
    )
    plain = Optim(name="sgd", lr=0.1, weight_decay=0.0)
    probe = replace(_PROBE, data=region, val=val, size=(384, 384), batch_size=256, optim=plain)
    tuning = replace(
        common,
        data=region,
        val=val,
        size=(384, 384),
        epochs=30,
        batch_size=64,
        repeats=2,
        optim=gentle,
        average=_AVERAGE,
    )
    return [
        Stage(
            name="intermediate",
            purpose="Learn birds from some 2,000 species of Asia and Europe, in shards.",
            cost="28 GPU hours",
            recipe=intermediate,
        ),
        Stage(
            name="larger", purpose="The last epochs of it, with larger pictures.", cost="16 GPU hours", recipe=larger
        ),
        Stage(name="probe", purpose=_PROBE_PURPOSE, cost="1.4 GPU hours", recipe=probe),
        Stage(
            name="fine-tuning",
            purpose="All of the network, to the species of the region; each picture twice in a batch.",
            cost="23 GPU hours",
            recipe=tuning,
        ),
    ]


def vit_l16_mim(data: str, region: str, val: str | None = None, *, as_published: bool = False) -> list[Stage]:
    """ViT L/16: MAE on birds without labels, then the species of a region (eu-common, 707).

    ``as_published`` draws plain pixels, as the published network did; the paper found that normalised ones teach more.
    """
    mae = Recipe(
        data=data,
        network="vit_l16",
        size=(224, 224),
        epochs=400,
        batch_size=512,
        objective=MAEConfig(normalized_targets=not as_published),
        augment=Augment(policy="birder", level=1),
        optim=Optim(lr=1.5e-4, beta2=0.95),
        schedule=Schedule(warmup_epochs=40.0),
        run=_GPU,
    )
    plain = Optim(name="sgd", lr=0.1, weight_decay=0.0)
    probe = replace(_PROBE, data=region, val=val, size=(256, 256), batch_size=512, optim=plain)
    tuning = replace(
        _FOR_LABELS,
        data=region,
        val=val,
        size=(256, 256),
        epochs=50,
        batch_size=512,
        augment=Augment(policy="birder", level=6),
        optim=Optim(lr=1e-3, layer_decay=0.8, clip=1.0),
        schedule=Schedule(warmup_epochs=5.0, final_lr=5e-4),
        average=_AVERAGE,
        run=replace(_GPU, accumulate=4),
    )
    return [
        Stage(
            name="mae",
            purpose="Draw three quarters of a picture from the rest. Published encoders have 200 and 400 epochs.",
            cost="138 GPU hours",
            recipe=mae,
        ),
        Stage(name="probe", purpose=_PROBE_PURPOSE, cost="4.5 GPU hours", recipe=probe),
        Stage(
            name="fine-tuning",
            purpose="All of the network, the first blocks far more slowly than the last; dropped paths are back.",
            cost="68 GPU hours",
            recipe=tuning,
        ),
    ]


def vit_parallel_data2vec(
    data: str, world: str, region: str, val: str | None = None, *, as_published: bool = False
) -> list[Stage]:
    """ViT Parallel S/16: data2vec, all species of the world at two sizes, then those of a region (735).

    ``as_published`` takes the loss on the visible patches, the mistake with which the published network was pretrained.
    """
    data2vec = Recipe(
        data=data,
        network="vit_parallel_s16_18x2_ls_avg",
        network_options={"drop_path_rate": 0.25},
        size=(224, 224),
        rgb="centered",
        epochs=400,
        batch_size=384,
        objective=Data2VecConfig(loss_on="visible" if as_published else "hidden"),
        augment=Augment(policy="birder", level=4),
        optim=Optim(lr=1e-3, clip=3.0),
        schedule=Schedule(warmup_epochs=20.0, final_lr=1e-4),
        run=_GPU,
    )
    common = replace(_FOR_LABELS, epochs=50, average=_AVERAGE)
    slow = Optim(lr=5e-4, layer_decay=0.75, clip=1.0)
    intermediate = replace(common, data=world, size=(256, 256), epochs=100, batch_size=384, optim=slow)
    larger = replace(common, data=world, size=(320, 320), batch_size=768, optim=replace(slow, lr=1e-4))
    tuning = replace(
        common,
        data=region,
        val=val,
        size=(384, 384),
        batch_size=1536,
        augment=Augment(policy="birder", level=9),
        optim=Optim(lr=7.5e-5, layer_decay=0.5, layer_decay_min=0.001, clip=1.0),
        run=replace(_GPU, accumulate=8),
    )
    purposes = {
        "data2vec": "Say what a teacher, which sees all of a picture, makes of the hidden patches.",
        "intermediate": "Learn birds from some 8,000 species of all the world.",
        "larger": "Again, with larger pictures.",
        "fine-tuning": "The species of the region, with the largest pictures.",
    }
    costs = dict(zip(purposes, ("122", "31", "26", "40"), strict=True))
    recipes = dict(
        zip(purposes, (data2vec, intermediate, replace(larger, run=replace(_GPU, accumulate=4)), tuning), strict=True)
    )
    return [
        Stage(name=name, purpose=purpose, cost=f"{costs[name]} GPU hours", recipe=recipes[name])
        for name, purpose in purposes.items()
    ]

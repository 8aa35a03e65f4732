"""How the starter model came about: a small network for trying out, from four thousand photographs of 100 species."""

from birder.objectives.configs import ClassificationConfig
from birder.recipes.chain import Stage
from birder.training.recipe import Augment, Average, Optim, Recipe, Run, Schedule


def starter(region: str, val: str) -> list[Stage]:
    """The model that comes with birder: a small RegNet Y of 100 species, from scratch, on pictures cut to the bird."""
    recipe = Recipe(
        data=region,
        val=val,
        network="regnet_y_400m",
        size=(128, 128),
        epochs=80,
        batch_size=32,
        objective=ClassificationConfig(mixup=0.2, cutmix=1.0, mix_probability=0.5),
        augment=Augment(policy="birder", level=4, min_scale=0.3),
        optim=Optim(lr=1.5e-3),
        schedule=Schedule(warmup_epochs=3.0),
        average=Average(decay=0.998),
        run=Run(dtype="bfloat16", channels_last=True, validate_every=5),
    )
    return [
        Stage(
            name="training",
            recipe=recipe,
            purpose="The species: gentle changes of the pictures and half of the batches mixed, as stronger ones learn "
            "too slowly in so few passes; an hour on two cores for four thousand pictures.",
            cost="540 CPU hours",
        )
    ]

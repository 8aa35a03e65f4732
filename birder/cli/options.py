"""Options as they were typed: whole numbers stay whole, a network's keep their kind, and a model may be left out."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Token

from birder.catalogue import FORMATS, STARTER, catalogue
from birder.config import from_dict
from birder.errors import ConfigError
from birder.training.recipe import Recipe


def whole_numbers(application: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number is asked for; cyclopts would round it."""
    for argument in arguments:
        kinds = _kinds(argument.hint)
        if int in kinds and float not in kinds:
            for token in argument.tokens:
                if "." in token.value:
                    raise CoercionError(argument=argument, token=token, target_type=int)


def network_options(arguments: ArgumentCollection, table: Mapping[str, Any]) -> None:
    """Join the network's options of the command line, whose values are TOML or plain text, with those of a file.

    Cyclopts would take the first kind that fits: 1 for true, and 0.1 for the whole number 0.

    Raises:
        ConfigError: A value of another kind than an option may have.
    """
    argument = next(argument for argument in arguments if argument.name == "--network-options")
    options = dict(table)
    for token in argument.tokens:
        if not token.keys:
            raise ConfigError("network_options: give each by its name, as in --network-options.drop_path_rate 0.1")
        options[".".join(token.keys).replace("-", "_")] = _value(token.value)
    if options:
        checked = from_dict(Recipe, {"data": "", "network_options": options}).network_options
        argument.tokens = [Token(keyword=argument.name, implicit_value=checked)]


def model_and_pictures(model: str, paths: Sequence[Path]) -> tuple[str, list[Path]]:
    """What was meant by the words of a command: MODEL PATHS, or PATHS alone, which the starter model is taken for.

    Raises:
        ConfigError: A model, and no pictures.
    """
    path = Path(model)
    if model not in catalogue() and path.suffix.lstrip(".") not in FORMATS and path.exists():
        return STARTER, [path, *paths]
    if not paths:
        raise ConfigError(f"{model}: which pictures? give files or folders after the model")
    return model, list(paths)


def _kinds(hint: Any) -> set[Any]:
    """The plain types in a hint: int of ``tuple[int, ...] | None``."""
    inner = [kind for part in get_args(hint) for kind in _kinds(part)]
    return {*inner} if inner else {hint}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

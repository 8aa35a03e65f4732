"""Frozen dataclasses from and to plain data (TOML, JSON, command line), strictly.

Every mistake is reported at once, each with its dotted path and the nearest option that exists.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from birder.errors import ConfigError, suggestion

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number"}
"""What messages call the types that may stand in the place of another."""


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """Build a dataclass, and the dataclasses in it, from nested dictionaries.

    Args:
        cls: A dataclass; fields may be bool, int, float, str, tuples and dictionaries of these, literals, optional
            values and other dataclasses.
        data: Values by field name; missing ones take their defaults.
        where: Path of ``data`` in the whole, for messages.

    Raises:
        ConfigError: Unknown names, values of a wrong type, missing fields; one line for each.
    """
    mistakes: list[str] = []
    value = _dataclass(cls, data, where, mistakes)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return value


def check(cls: type, data: Mapping[str, Any]) -> None:
    """Check values as ``from_dict`` does, where some may still be missing.

    Raises:
        ConfigError: Unknown names and values of a wrong type; one line for each.
    """
    mistakes: list[str] = []
    _dataclass(cls, data, "", mistakes)
    mistakes = [mistake for mistake in mistakes if not mistake.endswith(_MISSING)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def with_options(config: T, options: Mapping[str, Any], *, where: str = "") -> T:
    """A copy of a dataclass with some fields changed; checked as in ``from_dict``."""
    if not options:
        return config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return from_dict(type(config), {**values, **options}, where=where)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested data; fields that are None are left out, as TOML has no word for them."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: to_dict(value) if dataclasses.is_dataclass(value) else value
        for name, value in fields.items()
        if value is not None
    }


def within(config: object, low: float, high: float, *names: str) -> None:
    """Check that fields of a dataclass lie in a range, limits included. None always does, infinity never.

    Raises:
        ConfigError: One line for each that does not.
    """
    values = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    wrong = [name for name, value in values.items() if not low <= value <= high or value == float("inf")]
    if wrong:
        limits = f"{low:g} or more" if high == float("inf") else f"in {low:g} to {high:g}"
        raise ConfigError("\n".join(f"{name}: must be {limits}, not {getattr(config, name)}" for name in wrong))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _dataclass(cls: type[T], data: Any, where: str, mistakes: list[str]) -> T:
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        mistakes.append(f"{where or 'the configuration'}: expected a table of options, got {data!r}")
        return typing.cast(T, None)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    before = len(mistakes)
    for name, value in data.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in fields:
            mistakes.append(f"{path}: no such option{suggestion(name, fields)}")
        else:
            hint = _variant(_hints(typing.cast(Any, cls))[name], value, fields[name].default, path, mistakes)
            values[name] = _value(hint, value, path, mistakes)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            mistakes.append((f"{where}.{name}" if where else name) + _MISSING)
    if len(mistakes) > before:
        return typing.cast(T, None)
    try:
        return cls(**values)
    except ConfigError as error:  # a check of values in __post_init__; its lines begin with the field's name
        mistakes.extend(f"{where}.{line}" if where else line for line in str(error).splitlines())
        return typing.cast(T, None)


def _variant(hint: Any, value: Any, default: Any, path: str, mistakes: list[str]) -> Any:
    """Of a dataclass with children, the child whose default ``name`` the value names; without one, the default's."""
    if not dataclasses.is_dataclass(hint) or not isinstance(value, Mapping):
        return hint
    # The default of a field is the class's attribute.
    every = _descendants(typing.cast(type, hint))
    children: dict[str, type] = {getattr(child, "name"): child for child in every if hasattr(child, "name")}  # noqa: B009
    name = value.get("name")
    if isinstance(name, str) and name in children:
        return children[name]
    if children and name is not None:
        mistakes.append(f"{path}.name: {name!r} is not one of {', '.join(children)}{suggestion(str(name), children)}")
        return Any
    return type(default) if children and dataclasses.is_dataclass(default) else hint


def _descendants(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return [one for child in children for one in (child, *_descendants(child))]


def _value(hint: Any, value: Any, path: str, mistakes: list[str]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), value, path, mistakes)
    if origin is Literal:
        if value not in arguments:
            known = ", ".join(map(str, arguments))
            mistakes.append(f"{path}: {value!r} is not one of {known}{suggestion(value, map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        return _union(arguments, value, path, mistakes)
    if origin is tuple:
        return _tuple(arguments, value, path, mistakes)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], item, f"{path}.{key}", mistakes) for key, item in value.items()}
    return _scalar(origin or hint, value, path, mistakes)


def _union(choices: tuple[Any, ...], value: Any, path: str, mistakes: list[str]) -> Any:
    if value is None and type(None) in choices:
        return None
    attempts = []
    for choice in choices:
        if choice is type(None):
            continue
        attempt: list[str] = []
        result = _value(choice, value, path, attempt)
        if not attempt:
            return result
        attempts.append(attempt)
    others = [_WORDS[choice] for choice in choices[1:] if choice in _WORDS]
    mistakes.extend(f"{line}, or {' or '.join(others)}" if others else line for line in attempts[0])
    return None


def _tuple(arguments: tuple[Any, ...], value: Any, path: str, mistakes: list[str]) -> Any:
    variadic = len(arguments) == 2 and arguments[1] is Ellipsis
    if variadic and isinstance(value, int | float | str):
        value = (value,)  # one value may stand for a list of one
    if not isinstance(value, list | tuple):
        mistakes.append(f"{path}: expected a list, got {value!r}")
        return None
    if variadic:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        mistakes.append(f"{path}: expected {len(arguments)} values, got {len(value)}")
        return None
    pairs = zip(arguments, value, strict=True)
    return tuple(_value(hint, item, f"{path}[{index}]", mistakes) for index, (hint, item) in enumerate(pairs))


def _scalar(kind: Any, value: Any, path: str, mistakes: list[str]) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    mistakes.append(f"{path}: expected {_NOUNS.get(kind, kind.__name__)}, got {value!r}")
    return None


_MISSING = ": missing"
_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a table"}

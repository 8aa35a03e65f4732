"""The published models: a table of what they are, where their files lie, and how to tell that a file is whole.

The table is ``weights.toml`` beside this file. A user's own, ``catalogue.toml`` in ``$BIRDER_HOME``, has the same form;
its models are added, and replace those of the same name. Nothing here needs torch or the network.
"""

import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from birder.config import from_dict
from birder.errors import ConfigError, UnknownName, suggestion
from birder.gallery import gallery
from birder.home import home

Task = Literal["image_classification", "object_detection", "masked_image_modeling", "self_supervised_learning"]
STARTER = "starter"
"""The model that comes with birder, and is taken where none is named."""
FORMATS = ("pt", "safetensors")
"""Forms of model files that birder reads; others are known, but not supported."""

_FILE = Path(__file__).with_name("weights.toml")
_NAME = re.compile(r"\w[\w.+-]*")
_PACKAGED = "package:"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# The words of a tag that say how a model was trained; what follows the last of them says on what.
_METHOD = re.compile(
    r"(?<![^-_])(?:intermediate|mim|mmcr|data2vec2?|barlow-twins|byol|capi|dino(?:-v\d)?|i-jepa|ibot|lejepa|nepa|simclr"
    r"|simdino-v2|vicreg|franca|eva02-clip|eva|rotnet|dist|siglip-v\d|florence-v\d|pe-core|pe-spatial|sam2_1|sam|c1|sscd"
    r"|bioclip-v\d+|biotrove-clip-o|openai-clip)(?![^-_])"
)
_VARIANT = re.compile(r"_reparameterized$|-?\d+px$")


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a published model."""

    file_size: float
    """Size in MiB, rounded."""
    sha256: str
    """Checksum of the whole file, 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError("sha256: must be 64 hexadecimal digits in small letters")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network inside the published one: the backbone of a detector, the encoder of a pretrained pair."""

    network: str
    """Registered name."""
    tag: str | None = None
    """How it was trained."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A published model."""

    name: str
    """What it is asked for by."""
    network: str
    """Registered name of its network."""
    resolution: tuple[int, int]
    """(height, width) of the pictures that it was made for."""
    formats: dict[str, PublishedFile]
    """Its files, by their suffix without the dot."""
    url: str
    """Address of the folder that its files lie in; ``package:FOLDER`` is one that is installed with birder."""
    tag: str | None = None
    """How, and on what, it was trained."""
    epoch: int | None = None
    """Last epoch of its training, where several were published."""
    reparameterized: bool = False
    """Whether the branches of its blocks were merged after the training."""
    task: Task = "image_classification"
    """What it does."""
    licence: str = ""
    """Under what terms its file may be used; empty when the catalogue does not know."""
    backbone: Part | None = None
    """The network below a detector."""
    encoder: Part | None = None
    """The network that a pretraining was for."""
    superseded: tuple[str, ...] = ()
    """Checksums of files that were published under the same name before."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"name: {self.name!r} has letters that a file name should not have")
        if not is_secure(self.url) and self.folder is None:
            raise ConfigError(f"url: must begin with https://, not {self.url!r}")
        if not self.formats:
            raise ConfigError("formats: names no file")

    @property
    def region(self) -> str:
        """What it was trained on, a region or a data set, as its tag says: ``eu-common``, ``inat21``; may be empty."""
        tag = _VARIANT.sub("", _VARIANT.sub("", self.tag or ""))
        return _METHOD.split(tag)[-1].strip("-_")

    @property
    def folder(self) -> Path | None:
        """Where its files lie if they are installed with birder; None of those that are downloaded."""
        return _FILE.parent / self.url.removeprefix(_PACKAGED) if self.url.startswith(_PACKAGED) else None

    @property
    def obstacle(self) -> str:
        """Why this version of birder cannot load it; empty when it can."""
        if self.task != "image_classification":
            return f"task {self.task} is not supported yet"
        if not supported(self.network) or self.reparameterized:
            merged = " with merged branches" if self.reparameterized else ""
            return f"network {self.network}{merged} is not supported yet"
        if not set(FORMATS) & self.formats.keys():
            return f"{' and '.join(self.formats)} files are not supported"
        return ""

    @property
    def default_format(self) -> str:
        """The form of its file where none is asked for: one that birder reads, ``pt`` first."""
        return next((name for name in (*FORMATS, *self.formats) if name in self.formats), FORMATS[0])

    def file(self, file_format: str) -> PublishedFile:
        """Size and checksum of the file of a form.

        Raises:
            ConfigError: It was not published in that form.
        """
        if file_format not in self.formats:
            offered = " and ".join(self.formats)
            raise ConfigError(f"file_format: {self.name} is published as {offered}, not as {file_format!r}")
        return self.formats[file_format]

    def file_name(self, file_format: str) -> str:
        """Name of the file of a form."""
        return f"{self.name}.{file_format}"

    def address(self, file_format: str) -> str:
        """Where the file of a form lies."""
        return f"{self.url.rstrip('/')}/{self.file_name(file_format)}"


def catalogue() -> dict[str, Pretrained]:
    """Every published model by name, in the order of publication; the user's own models come last.

    Raises:
        ConfigError: The user's catalogue is wrong; every mistake with its file and dotted path.
    """
    own = home() / "catalogue.toml"
    return {**_published(), **_read(own)} if own.is_file() else dict(_published())


def find(name: str) -> Pretrained:
    """The published model of a name.

    Raises:
        UnknownName: No such model; near misses are suggested.
        ConfigError: The user's catalogue is wrong.
    """
    entries = catalogue()
    if name not in entries:
        raise UnknownName(f"no published model is called {name!r}{suggestion(name, entries)}")
    return entries[name]


def list_pretrained_models(include_filter: str | None = None, task: str | None = None) -> list[str]:
    """Names of the published models, by the first word of their network.

    Args:
        include_filter: Names to list, with ``*`` for any letters.
        task: Only models for this task, such as ``image_classification``.

    Raises:
        UnknownName: No such task.
        ConfigError: The user's catalogue is wrong.
    """
    if task is not None and task not in get_args(Task):
        raise UnknownName(f"no task is called {task!r} (there are: {', '.join(get_args(Task))})")
    names = [
        name
        for name, entry in catalogue().items()
        if fnmatchcase(name, include_filter or "*") and task in (None, entry.task)
    ]
    return sorted(names, key=lambda name: name.partition("_")[0])


def supported(network: str) -> bool:
    """Whether this version of birder has the network."""
    return network in gallery()


def is_secure(url: str) -> bool:
    """Whether what comes from there can be trusted on its way: by https, or from this computer."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


@cache
def _published() -> dict[str, Pretrained]:
    return _read(_FILE)


def _read(path: Path) -> dict[str, Pretrained]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    models = table.pop("models", {})
    for_all: dict[str, Any] = {key: table.pop(key) for key in ("url", "licence") if key in table}
    mistakes = [f"{path}: {key}: no such entry{suggestion(key, ('url', 'licence', 'models'))}" for key in table]
    if not isinstance(models, dict):
        mistakes.append(f"{path}: models: expected a table of models")
        models = {}
    entries = {}
    for name, row in models.items():
        try:
            entries[name] = _entry(name, row, for_all)
        except ConfigError as error:
            mistakes += [f"{path}: {line}" for line in str(error).splitlines()]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return entries


def _entry(name: str, row: Any, for_all: dict[str, Any]) -> Pretrained:
    where = f"models.{name}"
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: expected a table, got {row!r}")
    return from_dict(Pretrained, {**for_all, "name": name, **row}, where=where)

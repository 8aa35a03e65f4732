"""Everything birder raises on purpose.

A message says what is wrong, where, and what to do instead. Each error is also a child of the fitting builtin, so that
code which knows nothing of birder can still catch it.

    BirderError
    ├── UnknownName       (KeyError)       a network, model or option that does not exist
    ├── ConfigError       (ValueError)     options that do not fit
    ├── DataError         (ValueError)     a data set that cannot be used
    ├── ImageError        (OSError)        a picture that cannot be read
    ├── ModelFileError    (ValueError)     a file that is no usable model
    ├── WeightsMismatch   (ValueError)     weights that do not fit the network
    ├── DownloadError     (OSError)        a published file that could not be had
    ├── ServerError       (ConnectionError) a birder serve that does not answer, or cannot
    ├── NotFinite         (ArithmeticError) a loss that is no number
    ├── Stopped           (InterruptedError) a run that was asked to stop, and is saved
    └── MissingPackage    (ImportError)    an optional package that is not installed
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class BirderError(Exception):
    """Any error that birder raises on purpose."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return " ".join(str(part) for part in self.args)


class UnknownName(BirderError, KeyError):
    """A network, model or option that does not exist; the message suggests near misses."""


class ConfigError(BirderError, ValueError):
    """Options that do not fit; the message has one line per mistake, each with its dotted path."""


class DataError(BirderError, ValueError):
    """A data set that cannot be used as asked."""


class ImageError(BirderError, OSError):
    """A picture that cannot be read; the message is the reason in words, without the path.

    Attributes:
        code: The reason in one word, which stays the same from version to version: one of ``birder.data.images.CODES``.
    """

    def __init__(self, *words: object, code: str = "damaged") -> None:
        """A reason in words, and its code."""
        super().__init__(*words)
        self.code = code

    @property
    def reason(self) -> str:
        """Code and words, as they stand in a table: ``empty: the file is empty``."""
        words = str(self)
        return words if words.partition(":")[0] == self.code else f"{self.code}: {words}"


class ModelFileError(BirderError, ValueError):
    """A file that is no usable model."""


class WeightsMismatch(BirderError, ValueError):
    """Weights that do not fit the network; the message counts and names what differs."""


class DownloadError(BirderError, OSError):
    """A published file that could not be had: no network, no such file, no space, or another content than published."""


class ServerError(BirderError, ConnectionError):
    """A server that does not answer, that cannot, or that is no ``birder serve``.

    Attributes:
        status: Of its last answer, such as 503; 0 if there was none.
    """

    def __init__(self, *words: object, status: int = 0) -> None:
        """What is wrong, in words, and the status."""
        super().__init__(*words)
        self.status = status


class NotFinite(BirderError, ArithmeticError):
    """A loss that is not a finite number."""


class Stopped(BirderError, InterruptedError):
    """A run that was asked to stop; what it had is saved, and the same command goes on."""


class MissingPackage(BirderError, ImportError):
    """An optional package that is not installed; the message has the command that installs it."""


def refuse(mistakes: Iterable[tuple[str, str]]) -> None:
    """Refuse options that have mistakes: the name of each, and what is wrong with it.

    Raises:
        ConfigError: There is one; with a line for each.
    """
    lines = [f"{name}: {words}" for name, words in mistakes]
    if lines:
        raise ConfigError("\n".join(lines))


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean a, b?`` for the nearest of the known names, or an empty string."""
    near = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(near)}?" if near else ""


def need(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Raises:
        MissingPackage: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackage(f"{purpose} needs {package}: pip install 'birder[{extra}]'") from error

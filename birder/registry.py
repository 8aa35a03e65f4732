"""A table of named variants: each name stands for a class and the configuration it is built with."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from birder.errors import UnknownName, suggestion

T = TypeVar("T")


class Registry(Mapping[str, tuple[type[T], Any]], Generic[T]):
    """Name -> (class, configuration), in the order of registration.

    Example:
        ``@networks.register(small=Config(width=8), large=Config(width=64))`` above a class.
    """

    def __init__(self, kind: str) -> None:
        """An empty table; ``kind`` is the word for one entry in error messages."""
        self.kind = kind
        self._entries: dict[str, tuple[type[T], Any]] = {}

    def register(self, **variants: Any) -> Callable[[type[T]], type[T]]:
        """Decorate a class with its named configurations."""

        def decorate(cls: type[T]) -> type[T]:
            for name, config in variants.items():
                assert name not in self._entries, f"{self.kind} {name} is registered twice"
                self._entries[name] = (cls, config)
            return cls

        return decorate

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell pattern, in the order of registration."""
        return [name for name in self._entries if fnmatch.fnmatchcase(name, pattern.lower())]

    def __getitem__(self, name: str) -> tuple[type[T], Any]:
        """The class and configuration of a name.

        Raises:
            UnknownName: No such name; near misses are suggested.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownName(f"no {self.kind} is called {name!r}{suggestion(name, self._entries)}")
        return entry

    def __contains__(self, name: object) -> bool:
        """Whether the name is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of registration."""
        return iter(self._entries)

    def __len__(self) -> int:
        """The number of names."""
        return len(self._entries)

"""Chance that is a pure function of its seed: equal words give equal numbers in every process and run."""

from collections.abc import Sequence
from typing import TypeVar
from zlib import crc32

from numpy.random import PCG64, Generator, SeedSequence

Option = TypeVar("Option")


def generator(seed: int, *words: str | int) -> Generator:
    """A random generator that depends on nothing but ``seed`` and ``words``.

    Args:
        seed: A number that is not negative.
        words: What the numbers are for: texts, or numbers that are not negative.
    """
    # `hash` is salted anew in every process; a checksum is not.
    keys = [crc32(word.encode()) if isinstance(word, str) else word for word in words]
    return Generator(PCG64(SeedSequence([seed, *keys])))


def between(rng: Generator, low: float, high: float) -> float:
    """A number drawn evenly from low to high."""
    return low + (high - low) * float(rng.random())


def chosen(rng: Generator, options: Sequence[Option]) -> Option:
    """One of the options, each as likely as the other."""
    return options[int(rng.integers(len(options)))]

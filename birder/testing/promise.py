"""Promises in words, and what happens when one is broken."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from birder.errors import BirderError

S = TypeVar("S")


class BrokenPromise(BirderError, AssertionError):
    """Something does not do what all of its kind do; the message says what, which promise, and what it did."""


def expect(kept: bool, problem: str) -> None:
    """Say what is wrong, if it is.

    Raises:
        BrokenPromise: It is not kept.
    """
    if not kept:
        raise BrokenPromise(problem)


def check_promises(name: str, promises: Mapping[str, Callable[[S], None]], subject: S) -> None:
    """Check one promise after the other.

    Args:
        name: Of what is checked, for messages.
        promises: Each in words, and the function that checks it.
        subject: What the functions take.

    Raises:
        BrokenPromise: The first that is not kept, or whose check fails in some other way.
    """
    for promise, check in promises.items():
        try:
            check(subject)
        except BrokenPromise as broken:
            raise BrokenPromise(f"{name}: {promise}: {broken}") from None
        except Exception as error:
            raise BrokenPromise(f"{name}: {promise}: {type(error).__name__}: {error}") from error

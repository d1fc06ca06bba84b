"""How a door picks the backend that runs a call, and says why none could."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """What a door chose for one call: ``refusals`` holds (name, sentence) of each backend before it."""

    op: str
    backend: str
    refusals: tuple[tuple[str, str], ...]
    forced: bool
    backends: tuple[str, ...]


_watcher: ContextVar[list[Choice] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching() -> Iterator[list[Choice]]:
    """A list to which every door adds what it chooses while this runs, in this thread, uncompiled."""
    choices: list[Choice] = []
    token = _watcher.set(choices)
    try:
        yield choices
    finally:
        _watcher.reset(token)


def watched() -> bool:
    """Whether somebody wants to know what is chosen. Compilers cannot follow the question: they skip it."""
    return not torch.compiler.is_compiling() and _watcher.get() is not None


def _tell(choice: Choice) -> None:
    choices = _watcher.get()
    if choices is not None:
        choices.append(choice)


def choose(
    op: str, backends: tuple[ModuleType, ...], forced: str | None, *tensors: Tensor | None
) -> ModuleType:
    """The first backend that can run these tensors, or the one forced by name.

    A backend is a module with ``NAME`` and ``refusal(*tensors) -> None | sentence``, which looks at
    dtype, device and static shape only, never at values.

    Raises:
        ValueError: the forced name is unknown, or every candidate refuses; the message lists each refusal.
    """
    names = [backend.NAME for backend in backends]
    if forced is not None and forced not in names:
        raise ValueError(f"{op}: there is no backend {forced!r}; expected one of {', '.join(names)}.")
    refusals: list[tuple[str, str]] = []
    for backend in backends:
        if forced is not None and forced != backend.NAME:
            continue
        sentence = backend.refusal(*tensors)
        if sentence is None:
            if watched():
                _tell(Choice(op, backend.NAME, tuple(refusals), forced is not None, tuple(names)))
            return backend
        refusals.append((backend.NAME, sentence))
    told = " ".join(f"{name}: {sentence}" for name, sentence in refusals)
    raise ValueError(f"{op}: no backend can run this call. {told}")

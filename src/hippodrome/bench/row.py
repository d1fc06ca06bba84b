"""What a row of the benchmark is made of: contenders that do one job, what it is built for, what came out."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

OURS = "hippodrome"
"""Contenders whose names begin so are this library; every other is a rival or a floor."""


class Contender(NamedTuple):
    """One way to do the work of a row.

    ``call()`` runs the forward pass and returns outputs in the layout of ours, so that they can be compared;
    ``leaves`` are the tensors whose gradients a backward pass must fill. ``floor`` marks work that any
    contender has to do: what is measured against it is a ratio to a bound, not to a rival. ``both`` is the
    work of the second phase where it is not the backward pass of ``call``. ``same=False`` exempts other work,
    shown for scale, from the comparison of answers. Times and memory are divided by ``units``.
    """

    name: str
    call: Callable[[], Tensor]
    leaves: Sequence[Tensor] = ()
    floor: bool = False
    same: bool = True
    both: Callable[[], Any] | None = None
    units: int = 1


class Timing(NamedTuple):
    """Seconds of one contender at one phase of a row: the middle half of ``runs`` runs.

    ``peak_bytes``: the most memory that a process of this contender alone held beyond its inputs, or, for
    whole models, in all.
    """

    row: str
    phase: str
    contender: str
    shape: dict[str, int]
    threads: int
    median: float
    low: float
    high: float
    runs: int
    floor: bool = False
    peak_bytes: int | None = None
    dtype: str = "float32"


class Pace(NamedTuple):
    """How long to measure: rounds of all contenders, until ``seconds`` are spent but at least ``least``."""

    seconds: float = 20.0
    least: int = 3
    most: int = 50


class Where(NamedTuple):
    """The device and the dtype of the large tensors that a row is built for."""

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    @property
    def word(self) -> str:
        """The dtype as the command line and the tables spell it."""
        return str(self.dtype).removeprefix("torch.")

    def normal(self, seed: int = 0) -> Callable[..., Tensor]:
        """A source of normal numbers in float32 that are the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return lambda *shape: torch.randn(*shape, generator=generator).to(self.device)

    def narrow(self, *tensors: Tensor) -> list[Tensor]:
        """Large activations in the dtype of the row; the rest stays in float32."""
        return [x.to(self.dtype) for x in tensors]


class Ask(NamedTuple):
    """How a row that measures itself is to be measured; ``kind`` is what its name says behind the job."""

    row: str
    threads: int
    pace: Pace
    where: Where
    tiny: bool = False
    kind: str = ""


class Row(NamedTuple):
    """One table: either ``build(where, **shape)`` gives contenders, or ``measure(ask)`` does it all itself.

    ``level`` is op, layer, model or gpu. ``tiny`` is a shape that shows that the row runs. ``rivals`` are the
    packages, as pip calls them, whose contenders are left out where they are not installed. ``memory`` says
    whether the peak of each contender is worth a process of its own.
    """

    name: str
    level: str
    title: str
    note: str
    shapes: Sequence[dict[str, int]] = ()
    tiny: dict[str, int] = {}  # noqa: RUF012 - never changed
    build: Callable[..., list[Contender]] | None = None
    measure: Callable[[Ask], list[Timing]] | None = None
    dtypes: Sequence[str] = ("float32",)
    rivals: Sequence[str] = ()
    memory: bool = True
    kind: str = ""


def leaves(*tensors: Tensor) -> list[Any]:
    """Copies of tensors that take gradients; typed so that they go to a function as its arguments."""
    return [x.detach().clone().requires_grad_() for x in tensors]

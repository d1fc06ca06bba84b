"""The model contract: what training, generation, races and analysis rely on, and nothing more."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hippodrome.backbones._rows import overwrite
from hippodrome.mixers.base import Mixer, ParameterGroup
from hippodrome.shapes import Batch, Mean


class Objective(NamedTuple):
    """The metric a race chooses by, and which way is better.

    ``then`` names a metric that is better the lower it is and decides between weights that are equal by the
    first: of few sequences many weights tell as many right.
    """

    metric: str
    better: Literal["lower", "higher"]
    then: str | None = None


class Model(nn.Module, ABC):
    """A task around a backbone: inputs to outputs with a state, a loss, and exact metrics."""

    objective: ClassVar[Objective]
    backbone: Any
    first_chunk: int = 1
    """How many inputs the first call of a stream takes at least."""
    chunk: int = 1
    """Later calls take a multiple of this, and the first its least and a multiple of this."""

    @abstractmethod
    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The state before the first input of ``batch`` rows."""

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Tensor, tuple]:
        """Outputs for many inputs at once, and the state after them."""

    def last(
        self,
        inputs: Tensor,
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Tensor, tuple]:
        """Outputs at the last of many inputs, without a time axis, and the state after it.

        What a stream reads its past with. A model whose outputs cost much each forms the last alone.
        """
        outputs, state = self(inputs, state, resets=resets, dt=dt)
        return outputs[:, -1].clone(), state

    def step(self, inputs_t: Tensor, state: tuple, *, dt_t: Tensor | None = None) -> tuple[Tensor, tuple]:
        """Outputs for one input of each row: ``forward`` on a sequence of one, without its time axis."""
        outputs, state = self(inputs_t[:, None], state, dt=None if dt_t is None else dt_t[:, None])
        return outputs[:, 0], state

    def advance_(self, inputs_t: Tensor, state: tuple, *, dt_t: Tensor | None = None) -> Tensor:
        """Outputs for one input of each row, overwriting a state of fixed size that the caller owns.

        The default is ``step`` plus a copy. A state grows where ``init_state`` without ``max_length`` gives
        other shapes than with it; such a one goes through ``step``.
        """
        outputs, after = self.step(inputs_t, state, dt_t=dt_t)
        overwrite(state, after)
        return outputs

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The scalar to minimise, a mean over the batch."""

    @abstractmethod
    def metrics(self, batch: Any) -> Mapping[str, Mean]:
        """Metrics as totals and counts: a ragged last batch adds up exactly. Holds ``objective.metric``."""

    def metrics_in_chunks(self, batch: Any, chunk: int) -> Mapping[str, Mean]:
        """The metrics with rows read ``chunk`` inputs at a time through the state: for rows of any length.

        Raises:
            ValueError: a model that reads a row as a whole.
        """
        raise ValueError(
            f"a {type(self).__name__} reads a row as a whole, and only a language model reads it in chunks. "
            "Leave the chunk out."
        )

    @abstractmethod
    def tokens(self, batch: Batch) -> int:
        """How many tokens (steps of all rows) a batch holds: the unit of budgets and throughput."""

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of all mixers inside; every other parameter trains at the global rate."""

    @classmethod
    @abstractmethod
    def example(cls) -> "Model":
        """A small instance."""

    @classmethod
    @abstractmethod
    def example_batch(cls) -> Batch:
        """A batch that fits ``example()``."""


def accepts_dt(backbone: nn.Module | None) -> bool:
    """Whether every mixer inside has continuous time, so that steps of another size can be told to it."""
    if backbone is None or not getattr(backbone, "accepts_dt", True):
        return False  # there are no mixers, or they do not run along time
    mixers = [module for module in backbone.modules() if isinstance(module, Mixer)]
    return bool(mixers) and all(mixer.accepts_dt for mixer in mixers)


def exact_sum(values: Tensor) -> Tensor:
    """The sum in float64 where the device has it: a metric's total over batches of any size."""
    return values.sum(dtype=torch.float32 if values.device.type == "mps" else torch.float64)

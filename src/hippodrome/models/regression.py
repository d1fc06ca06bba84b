"""The sequence regression: values in, values out at every step."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._regressed import check_widths, mean_square, measured, positive, rolled
from hippodrome.models.base import Model, Objective, accepts_dt
from hippodrome.shapes import Mean, RegressionBatch


class RegressionModel(Model):
    """Values, backbone, linear head: one prediction of every target at every step.

    ``forward`` gives predictions in raw units, (b, t, targets), each from the steps so far. Loss and metrics
    are on scaled values, so that a mean squared error of 1 is what the train mean scores and 0 is perfect. A
    target that is NaN is left out of both; an input that is NaN is read as its channel's mean. A batch's time
    steps reach the backbone where every mixer in it has continuous time; another one has no use for them and
    reads the values alone.

    With ``increments`` the model learns a law of motion: its targets are the first channels a step later, it
    predicts how they change, and the change, not the value, is what errors are scaled by. A mean squared
    error of about 1 is then what persistence scores. Whatever predicts its own next input can ``roll_out``.

    Args:
        backbone: causal, width ``d_model``.
        channels: values a step that are read.
        targets: values a step that are predicted.
        location: mean of each channel over the train data; None for zeros.
        scale: standard deviation of each channel over the train data; None for ones, a zero counts as one.
        target_location: mean of each target over the train data; None for zeros.
        target_scale: standard deviation of each target over the train data; None for ones, a zero counts as
            one.
        increments: whether targets are the channels of the same number a step later; location and scale of
            the targets are then those of the changes.

    Raises:
        ValueError: no channels or no targets, lists that do not fit them, increments of more targets than
            channels, or a backbone that is not causal.
    """

    objective: ClassVar[Objective] = Objective("mse", "lower")
    location: Tensor
    scale: Tensor
    target_location: Tensor
    target_scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        targets: int,
        location: list[float] | None = None,
        scale: list[float] | None = None,
        target_location: list[float] | None = None,
        target_scale: list[float] | None = None,
        increments: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, targets) < 1:
            raise ValueError(
                f"a regression reads one channel at least and predicts one target at least; got {channels} "
                f"and {targets}. Correct the smaller."
            )
        check_widths(channels, targets, location, scale, target_location, target_scale)
        if increments and targets > channels:
            raise ValueError(
                f"increments are those of channels, so there are no more targets than channels; got "
                f"{targets} and {channels}. Leave increments out."
            )
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "a regression at every step reads time in order; got a backbone that is not causal. Choose "
                "another."
            )
        self.channels, self.targets, self.increments = channels, targets, increments
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        self.input = nn.Linear(channels, d_model)
        self.head = nn.Linear(d_model, targets)
        self.register_buffer("location", torch.tensor(location or [0.0] * channels))
        self.register_buffer("scale", positive(scale or [1.0] * channels))
        self.register_buffer("target_location", torch.tensor(target_location or [0.0] * targets))
        self.register_buffer("target_scale", positive(target_scale or [1.0] * targets))

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The backbone's state before the first step."""
        return self.backbone.init_state(batch, max_length)

    def forward(
        self,
        inputs: Float[Tensor, "b t c"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t o"], tuple]:
        """Predictions in raw units at each step, and the state after the last."""
        scaled, last = self._scaled(inputs, state, resets, dt)
        return scaled * self.target_scale + self.target_location + self._start(inputs), last

    @torch.no_grad()
    def roll_out(
        self, inputs: Float[Tensor, "b t c"], steps: int, *, dt: Tensor | None = None
    ) -> Float[Tensor, "b steps c"]:
        """The ``steps`` inputs that follow these, each predicted from those before it, in constant memory.

        ``dt`` (b, t) are the time steps of the inputs; those to come have the last one's.

        Raises:
            ValueError: a model that does not predict all of its inputs, or no step.
        """
        if self.targets != self.channels:
            raise ValueError(
                f"a roll-out feeds predictions back as inputs, so a model has as many targets as channels; "
                f"got {self.targets} targets from {self.channels} channels. Train one on the next value of "
                f"every channel."
            )
        return rolled(self, inputs, steps, lambda values: values, dt)

    def loss(self, batch: RegressionBatch) -> Float[Tensor, ""]:
        """Mean squared error over the targets that are there, on scaled values."""
        error, seen = self._error(batch)
        return mean_square(error, seen)

    def metrics(self, batch: RegressionBatch) -> Mapping[str, Mean]:
        """ "mse" and "mae" on scaled values; "r2", one minus the share of the train variance left over."""
        with torch.no_grad():
            error, seen = self._error(batch)
        return measured(error, seen)

    def tokens(self, batch: Any) -> int:
        """Steps of all rows."""
        return batch.inputs.shape[0] * batch.inputs.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _scaled(
        self, inputs: Tensor, state: tuple | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, tuple]:
        read = torch.nan_to_num((inputs - self.location) / self.scale, nan=0.0)
        features, last = self.backbone(self.input(read), state, resets=resets, dt=dt)
        return self.head(features), last

    def _start(self, inputs: Tensor) -> Tensor:
        """What predictions are counted from: zero, or of increments the inputs, their mean where missing."""
        if not self.increments:
            return torch.zeros_like(self.target_location)
        k = self.targets
        return torch.where(inputs[..., :k].isnan(), self.location[:k], inputs[..., :k])

    def _error(self, batch: RegressionBatch) -> tuple[Tensor, Tensor]:
        """Errors on scaled values, zero where nothing is asked, and where something is."""
        dt = batch.dt if batch.dt is not None and accepts_dt(self.backbone) else None
        said, _ = self._scaled(batch.inputs, None, None, dt)
        wide = said.to(torch.promote_types(said.dtype, torch.float32))
        seen = ~batch.targets.isnan()
        wanted = torch.where(seen, batch.targets, 0.0) - self._start(batch.inputs)
        wanted = (wanted - self.target_location) / self.target_scale
        return torch.where(seen, wide - wanted, 0.0), seen

    @classmethod
    def example(cls) -> "RegressionModel":
        """A small instance, two channels to three targets."""
        return cls(
            Stack.example(),
            2,
            3,
            location=[0.5, 0.0],
            scale=[2.0, 1.0],
            target_location=[0.0, 1.0, -1.0],
            target_scale=[1.0, 0.5, 2.0],
        )

    @classmethod
    def example_batch(cls) -> RegressionBatch:
        """Three rows of nine steps; the first two steps, and one later, ask nothing."""
        numbers = torch.Generator().manual_seed(0)
        inputs = torch.randn(3, 9, 2, generator=numbers)
        targets = torch.randn(3, 9, 3, generator=numbers)
        targets[:, :2] = targets[1, 5, 0] = float("nan")
        return RegressionBatch(inputs, targets)

"""Laws of motion that are alike but not the same: one shared part, and a small one for each environment."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._regressed import check_widths, mean_square, measured, positive, rolled
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.shapes import Mean, RegressionBatch


class EnvironmentsModel(Model):
    """The change to the next state is f(x) + g_e(x): f is the backbone's, g_e a perceptron of environment e.

    After Yin, Ayed, de Bézenac, Baskiotis, Gallinari 2021, "LEADS: learning dynamical systems that generalize
    across environments", arXiv 2106.04546, as we recall it: f is to say what all environments share, so each
    g_e pays for its size. Here that is ``penalty`` times its mean square on the train states; the paper adds
    a bound on how fast g_e may change, which is left out, and learns derivatives where this learns steps.

    Inputs are states with the number of their environment, from 0, as the last channel; outputs, loss and
    metrics are those of a regression with increments: next states in raw units, errors on scaled changes. A
    state that is NaN is read as its channel's mean.

    Args:
        backbone: causal, width ``d_model``: f, which is not told the environment.
        channels: values a step that are read, the number of the environment among them.
        targets: values a step that are predicted, the first channels a step later.
        environments: how many there are.
        hidden: units of each g_e.
        penalty: factor of the mean square of g_e in the loss.
        location: mean of each channel over the train data; None for zeros. The last is not used.
        scale: standard deviation of each channel over the train data; None for ones, a zero counts as one.
        target_location: mean change of each target over the train data; None for zeros.
        target_scale: standard deviation of these changes; None for ones, a zero counts as one.
        increments: always True: what a task says of itself.

    Raises:
        ValueError: no state beside the number, other targets than the states, no environment, a negative
            penalty, or a backbone that is not causal.
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
        environments: int,
        hidden: int = 16,
        penalty: float = 0.01,
        location: list[float] | None = None,
        scale: list[float] | None = None,
        target_location: list[float] | None = None,
        target_scale: list[float] | None = None,
        increments: bool = True,
    ) -> None:
        super().__init__()
        if targets < 1 or channels != targets + 1 or not increments:
            raise ValueError(
                f"a model of environments reads its targets and the number of the environment, and predicts "
                f"increments; got {channels} channels for {targets} targets and increments={increments}. Put "
                f"the number behind the states."
            )
        if min(environments, hidden) < 1 or penalty < 0:
            raise ValueError(
                f"there is an environment and a unit at least, and no penalty below 0; got {environments}, "
                f"{hidden} and {penalty:g}. Correct these."
            )
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "a law of motion reads time in order; got a backbone that is not. Choose another."
            )
        self.channels, self.targets, self.environments = channels, targets, environments
        self.penalty = penalty
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        self.input = nn.Linear(targets, d_model)
        self.head = nn.Linear(d_model, targets)
        spread = targets**-0.5
        self.own_in = nn.Parameter(torch.empty(environments, hidden, targets).uniform_(-spread, spread))
        self.own_bias = nn.Parameter(torch.empty(environments, hidden).uniform_(-spread, spread))
        # Zero, so that at first all environments move alike.
        self.own_out = nn.Parameter(torch.zeros(environments, targets, hidden))
        check_widths(channels, targets, location, scale, target_location, target_scale)
        # Of the channels the last is no state.
        self.register_buffer("location", torch.tensor(location or [0.0] * channels)[:targets])
        self.register_buffer("scale", positive(scale or [1.0] * channels)[:targets])
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
        """The next states in raw units, without the number, and the state of the model after the last."""
        shared, own, last = self._parts(inputs, state, resets, dt)
        change = (shared + own) * self.target_scale + self.target_location
        return self._start(inputs) + change, last

    @torch.no_grad()
    def roll_out(self, inputs: Float[Tensor, "b t c"], steps: int) -> Float[Tensor, "b steps o"]:
        """The ``steps`` states that follow, each predicted from those before it, in the same environment.

        Raises:
            ValueError: no step.
        """
        number = inputs[:, -1, -1:]
        return rolled(self, inputs, steps, lambda states: torch.cat([states, number], -1))

    def loss(self, batch: RegressionBatch) -> Float[Tensor, ""]:
        """Mean squared error on scaled changes over the targets that are there, and the penalty."""
        error, own, seen = self._error(batch)
        return mean_square(error, seen) + self.penalty * own.square().mean()

    def metrics(self, batch: RegressionBatch) -> Mapping[str, Mean]:
        """ "mse" and "mae" on scaled changes; "r2", one minus the first; "own", the mean square of g_e."""
        with torch.no_grad():
            error, own, seen = self._error(batch)
        return {**measured(error, seen), "own": Mean(exact_sum(own.square()), own.numel())}

    def tokens(self, batch: Any) -> int:
        """Steps of all rows."""
        return batch.inputs.shape[0] * batch.inputs.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _parts(
        self, inputs: Tensor, state: tuple | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple]:
        """What all environments and what each of them adds to the scaled change, and the state."""
        number = inputs[..., -1].round().long()
        if not torch.compiler.is_compiling() and bool(((number < 0) | (number >= self.environments)).any()):
            raise ValueError(
                f"the last channel is the number of an environment, from 0 to {self.environments - 1}; got "
                f"{int(number.min())} to {int(number.max())}. Build the model for as many as there are."
            )
        x = (self._start(inputs) - self.location) / self.scale
        features, last = self.backbone(self.input(x), state, resets=resets, dt=dt)
        inner = torch.einsum("bthc,btc->bth", self.own_in[number], x) + self.own_bias[number]
        return self.head(features), torch.einsum("btoh,bth->bto", self.own_out[number], F.gelu(inner)), last

    def _start(self, inputs: Tensor) -> Tensor:
        """The states, their mean where they are missing."""
        states = inputs[..., : self.targets]
        return torch.where(states.isnan(), self.location, states)

    def _error(self, batch: RegressionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Errors on scaled changes, zero where nothing is asked, what environments add, and what is asked."""
        shared, own, _ = self._parts(batch.inputs, None, None, None)
        seen = ~batch.targets.isnan()
        change = torch.where(seen, batch.targets, 0.0) - self._start(batch.inputs)
        wanted = (change - self.target_location) / self.target_scale
        wide = (shared + own).to(torch.promote_types(shared.dtype, torch.float32))
        return torch.where(seen, wide - wanted, 0.0), own, seen

    @classmethod
    def example(cls) -> "EnvironmentsModel":
        """A small instance of three environments."""
        return cls(Stack.example(), 3, 2, 3, hidden=4, location=[0.5, 0.0, 1.0], target_scale=[0.5, 2.0])

    @classmethod
    def example_batch(cls) -> RegressionBatch:
        """Three rows of nine steps, each of another environment; one step asks nothing."""
        numbers = torch.Generator().manual_seed(0)
        states = torch.randn(3, 10, 2, generator=numbers)
        number = torch.arange(3.0)[:, None, None].expand(3, 9, 1)
        targets = states[:, 1:].clone()
        targets[1, 5, 0] = float("nan")
        return RegressionBatch(torch.cat([states[:, :-1], number], 2), targets)

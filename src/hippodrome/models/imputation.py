"""The imputation model: a window of series with holes to a point and quantiles for every cell of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._forecast_check import check_scales
from hippodrome.models._window import measured, on_scale, ordered, pinball, statistics
from hippodrome.models.base import Model, Objective, accepts_dt
from hippodrome.shapes import Mean, RegressionBatch


class ImputationState(NamedTuple):
    """The backbone's state and the last value seen of each variate, scaled; zero where none was."""

    backbone: tuple
    last: Float[Tensor, "b c"]


class ImputationModel(Model):
    """Raw values with holes in, what stands in every cell out, learned by hiding cells that are known.

    A missing or hidden value is NaN. It is replaced by a first guess, and beside each value the model is told
    whether it was seen (1) or not (0): the mask channel of masked training (Devlin et al. 2019, arXiv
    1810.04805, section 3.1, of tokens; for series e.g. Du, Cote, Liu 2023, arXiv 2202.08516, section 3.1,
    "masked imputation task"). The backbone's features give what is to be added to the guess. Which cells are
    hidden is decided by the data (``data/imputation.py``). The loss is over these alone: the squared (or
    absolute) error of the point plus the mean pinball loss of the quantiles, on scaled values.

    Each variate is scaled by its train statistics, and with the normalization "window" then by mean and
    deviation of what was seen of it in the window. With ``together`` a token holds all variates of a step, so
    that one is filled in from the others too; else each variate is a row of its own that shares all weights
    (rows of one window stand together, for backbones that look across ``variates``).

    A backbone that reads both ways fills a hole in from both sides; the window is then one whole, and
    ``step``, a state and ``resets`` are refused. A causal one fills it in from the steps before, and streams.
    ``dt`` reaches the backbone where every mixer in it has continuous time, and the linear guess always.

    The output (b, t, c, 1 + q) holds the point, then the quantiles, which cannot cross and do not train what
    the point is made of.

    Args:
        backbone: of width ``d_model``.
        channels: variates c.
        quantiles: increasing, each inside (0, 1); empty for the point alone.
        location: mean of each variate over the train data; None for zeros.
        scale: standard deviation of each variate over the train data; None for ones, a zero counts as one.
        guess: "linear" interpolation between the neighbours seen (at an end the nearest), the "last" value
            seen, or the "mean", i.e. zero after scaling; None takes "linear" where the backbone reads both
            ways and "last" where it does not.
        normalization: "window" or "none"; None takes "window" where the backbone reads both ways and "none"
            where it does not.
        together: whether a token holds all variates of a step.
        dropout: chance that a feature in front of the head is dropped in training.
        error: "squared" or "absolute", of the point.

    Raises:
        ValueError: sizes that do not fit one another, quantiles out of order, or a guess or a normalization
            that reads later steps in front of a causal backbone.
    """

    objective: ClassVar[Objective] = Objective("mse", "lower")
    location: Tensor
    scale: Tensor
    levels: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        location: list[float] | None = None,
        scale: list[float] | None = None,
        guess: Literal["linear", "last", "mean"] | None = None,
        normalization: Literal["window", "none"] | None = None,
        together: bool = True,
        dropout: float = 0.0,
        error: Literal["squared", "absolute"] = "squared",
    ) -> None:
        super().__init__()
        causal = bool(getattr(backbone, "causal", True))
        guess = guess or ("last" if causal else "linear")
        normalization = normalization or ("none" if causal else "window")
        self._check(backbone, channels, quantiles, location, scale, guess, normalization, together, error)
        self.channels, self.quantiles, self.together = channels, quantiles, together
        self.guess, self.normalization, self.error = guess, normalization, error
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        width = channels if together else 1
        self.input = nn.Linear(2 * width, d_model)
        self.dropout = nn.Dropout(dropout)
        self.point = nn.Linear(d_model, width)
        self.spreads = nn.Linear(d_model, width * len(quantiles)) if quantiles else None
        self.register_buffer("location", torch.tensor(location or [0.0] * channels))
        spread = torch.tensor(scale or [1.0] * channels)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)

    def init_state(self, batch: int, max_length: int | None = None) -> ImputationState:
        """The state before the first step; refused by a backbone that reads both ways."""
        rows = batch if self.together else batch * self.channels
        inner = self.backbone.init_state(rows, max_length)
        return ImputationState(inner, self.input.weight.new_zeros(batch, self.channels))

    def forward(
        self,
        inputs: Float[Tensor, "b t c"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t c outputs"], tuple]:
        """Point and quantiles of every cell in raw units, seen or not, and the state after the last step."""
        scaled, after = self._scaled(inputs, state, resets, dt)
        return scaled * self.scale[:, None] + self.location[:, None], after

    def loss(self, batch: RegressionBatch) -> Float[Tensor, ""]:
        """Mean error of the point plus mean pinball loss of the quantiles, over the cells asked for."""
        said, wanted, asked = self._answers(batch)
        count = asked.sum().clamp(min=1)
        error = said[..., 0] - wanted
        error = error.square() if self.error == "squared" else error.abs()
        loss = torch.where(asked, error, 0.0).sum() / count
        if self.spreads is not None:
            missed = pinball(said[..., 1:], wanted, self.levels)
            loss = loss + torch.where(asked, missed, 0.0).sum() / count
        return loss

    def metrics(self, batch: RegressionBatch) -> Mapping[str, Mean]:
        """ "mse", "mae" and "pinball" on scaled values and "coverage" of the outermost quantiles, at the
        cells asked for."""
        with torch.no_grad():
            return measured(*self._answers(batch), self.levels)

    def tokens(self, batch: Any) -> int:
        """Steps of all windows."""
        return batch.inputs.shape[0] * batch.inputs.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _answers(self, batch: RegressionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """What is said and what was wanted of each cell, on scaled values, and which cells are asked for."""
        raw, _ = self(batch.inputs, dt=batch.dt)
        return on_scale(raw, batch.targets, self.location, self.scale)

    def _scaled(
        self, inputs: Tensor, state: tuple | None, resets: Tensor | None, dt: Tensor | None
    ) -> tuple[Tensor, tuple]:
        """Point and quantiles (b, t, c, 1 + q) on the scale of the train data, and the state."""
        streams = bool(getattr(self.backbone, "causal", True))
        if not streams and (state is not None or resets is not None):
            raise ValueError(
                "this imputation model reads a window from both sides as one whole, so it takes neither a "
                "state nor resets. Hand it whole windows, or build it over a causal backbone."
            )
        c = inputs.shape[-1]
        values = (inputs - self.location) / self.scale
        seen = ~values.isnan()
        before = None if state is None else ImputationState(*state)
        mean, spread = torch.zeros_like(values[:, :1]), torch.ones_like(values[:, :1])
        if self.normalization == "window":
            mean, spread = (part[:, None] for part in statistics(values, "window"))
            # One value says nothing of the size of changes, so the train data's stays.
            spread = torch.where(seen.sum(1, keepdim=True) > 1, spread, 1.0)
        values = torch.where(seen, (values - mean) / spread, 0.0)
        last = torch.zeros_like(values[:, 0]) if before is None else before.last
        if self.guess == "linear":
            guess = _interpolated(values, seen, dt)
        elif self.guess == "last":
            guess = _carried(values, seen, last, resets)
            last = guess[:, -1]
        else:
            guess = torch.zeros_like(values)
        told = torch.stack([torch.where(seen, values, guess), seen.to(values.dtype)], -1)  # b t c 2
        rows = told.flatten(2) if self.together else told.transpose(1, 2).flatten(0, 1)
        if not self.together:
            resets, dt = _repeated(resets, c), _repeated(dt, c)
        features, inner = self.backbone(
            self.input(rows),
            None if before is None else before.backbone,
            resets=resets,
            dt=dt if accepts_dt(self.backbone) else None,
        )
        features = self.dropout(features)
        point = self._cells(self.point(features), c) + guess[..., None]
        outputs = point
        if self.spreads is not None:
            steps = self._cells(self.spreads(features), c)
            outputs = torch.cat([point, point.detach() + ordered(steps)], -1)
        after = ImputationState(inner, last) if streams else ()
        return outputs * spread[..., None] + mean[..., None], after

    def _cells(self, rows: Tensor, channels: int) -> Tensor:
        """The head's numbers (rows, t, width * k) as (b, t, c, k)."""
        if self.together:
            return rows.unflatten(-1, (channels, -1))
        return rows.unflatten(0, (-1, channels)).transpose(1, 2)

    @staticmethod
    def _check(
        backbone: nn.Module,
        channels: int,
        quantiles: tuple[float, ...],
        location: list[float] | None,
        scale: list[float] | None,
        guess: str,
        normalization: str,
        together: bool,
        error: str,
    ) -> None:
        if channels < 1:
            raise ValueError(f"an imputation fills one variate at least; got {channels}. Give the number.")
        check_scales(channels, quantiles, location, scale)
        for name, word, words in (
            ("guess", guess, ("linear", "last", "mean")),
            ("normalization", normalization, ("window", "none")),
            ("error", error, ("squared", "absolute")),
        ):
            if word not in words:
                raise ValueError(f"{name} is one of {', '.join(words)}; got {word!r}. Take one of these.")
        if getattr(backbone, "causal", True) and (guess == "linear" or normalization == "window"):
            raise ValueError(
                f"a causal backbone fills in from the steps before, and guess={guess!r} with "
                f"normalization={normalization!r} reads later ones. Leave both out, or take a backbone that "
                f"reads both ways (bi-s4d, say)."
            )
        variates = getattr(backbone, "variates", None)
        if variates is not None and (together or variates != channels):
            raise ValueError(
                f"a backbone that reads all variates of a series together is given each as a row: "
                f"together=False, and variates={channels} as the data has; got together={together} and a "
                f"backbone for {variates}."
            )

    @classmethod
    def example(cls) -> "ImputationModel":
        """A small causal instance of two variates."""
        return cls(Stack.example(), 2, location=[1.0, -2.0], scale=[2.0, 0.5])

    @classmethod
    def example_batch(cls) -> RegressionBatch:
        """Three windows with a third of the cells hidden, and one that is missing and not asked for."""
        numbers = torch.Generator().manual_seed(0)
        values = torch.randn(3, 9, 2, generator=numbers).cumsum(1)
        hidden = torch.rand(3, 9, 2, generator=numbers) < 1 / 3
        nothing = float("nan")
        targets = torch.where(hidden, values, nothing)
        inputs = torch.where(hidden, nothing, values)
        inputs[1, 4, 0] = targets[1, 4, 0] = nothing
        return RegressionBatch(inputs, targets)


def _neighbours(seen: Bool[Tensor, "b t c"]) -> tuple[Tensor, Tensor]:
    """The last step seen up to each one, -1 for none, and the next seen from each one on, t for none."""
    t = seen.shape[1]
    places = torch.arange(t, device=seen.device)[None, :, None].expand(seen.shape)
    before = torch.where(seen, places, -1).cummax(1).values
    after = torch.where(seen, places, t).flip(1).cummin(1).values.flip(1)
    return before, after


def _interpolated(values: Tensor, seen: Tensor, dt: Tensor | None) -> Float[Tensor, "b t c"]:
    """Between the neighbours seen by time, beyond the last of them its value, zero where nothing is seen."""
    t = values.shape[1]
    steps = torch.ones_like(values[..., 0]) if dt is None else dt.to(values.dtype)
    times = steps.cumsum(1)[..., None].expand(values.shape)
    before, after = _neighbours(seen)
    low, high = before.clamp(min=0), after.clamp(max=t - 1)
    first, last = values.gather(1, low), values.gather(1, high)
    begin, end = times.gather(1, low), times.gather(1, high)
    share = (times - begin) / torch.where(end > begin, end - begin, 1.0)
    between = first + share * (last - first)
    found = torch.where(before < 0, last, torch.where(after >= t, first, between))
    return torch.where(seen.any(1, keepdim=True), found, 0.0)


def _carried(values: Tensor, seen: Tensor, last: Tensor, resets: Tensor | None) -> Float[Tensor, "b t c"]:
    """The last value seen up to each step, ``last`` where it was before the first, zero since a reset."""
    before, _ = _neighbours(seen)
    found = values.gather(1, before.clamp(min=0))
    started = torch.full_like(before, -1)
    if resets is not None:
        places = torch.arange(values.shape[1], device=values.device)
        started = torch.where(resets, places, -1).cummax(1).values[..., None].expand(values.shape)
    earlier = torch.where(started < 0, last[:, None], 0.0)
    return torch.where((before >= 0) & (before >= started), found, earlier)


def _repeated(rows: Tensor | None, channels: int) -> Tensor | None:
    """A row for each variate of a window."""
    return None if rows is None else rows.repeat_interleave(channels, 0)

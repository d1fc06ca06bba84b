"""The forecaster: a window of the past to a point and quantiles for every step of the horizon."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._roll_out import RollOut
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.shapes import Mean, SeriesBatch

_EPS = 1e-5


class ForecastState(NamedTuple):
    """What a stream of observations leaves behind: all that the next forecast needs.

    ``backbone`` has b * c rows. ``tail`` holds the normalized values that the next patch shares with the last
    one, ``features`` what the backbone said of the patches that the head reads. ``mean`` and ``spread``
    normalize; they come from the first ``look_back`` steps of the stream and stay, which is what ``started``
    (0 or 1) tells.
    """

    backbone: tuple
    tail: Float[Tensor, "b overlap c"]
    features: Float[Tensor, "b c patches d"]
    mean: Float[Tensor, "b c"]
    spread: Float[Tensor, "b c"]
    started: Float[Tensor, "b"]


class ForecastingModel(Model):
    """Raw values in, a forecast of the whole horizon at once in raw units out.

    Each variate is scaled by its train statistics, then normalized by mean and deviation of its own
    look-back, and the forecast is mapped back the same way (reversible instance normalization without the
    affine part: Kim et al. 2022, ICLR, "Reversible instance normalization for accurate time-series
    forecasting against distribution shift", equations 1-3). Every variate is a sequence of its own that
    shares all weights, cut into patches which the backbone reads in order (Nie et al. 2022, arXiv
    2211.14730, section 3.1). One linear map forecasts the horizon directly.

    A backbone with a closed loop (``backbones.closed_loop``) instead reads every step and then runs on by
    itself; each of its outputs gives one value, so that the horizon costs no parameters. To the loss come two
    errors over the past, of the open loop's next value and of the decoder's predicted next input, all three
    with weight one as published (there as roots of mean squares).

    The forecast (b, horizon, c, 1 + q) holds the point, trained by squared error, and then the quantiles,
    trained by pinball loss (Koenker and Bassett 1978), which cannot cross: the middle one is free, each
    of the others is a positive step away from its neighbour.

    A missing value is NaN. In the past it is left out of the statistics and then read as zero, i.e. as the
    mean of its window; in the future it is left out of loss and metrics. A past that is shorter than
    ``look_back`` is filled with NaN on the left by the caller.

    Streaming: a fresh state takes ``look_back`` steps or more by a multiple of ``stride``, later calls take
    multiples of ``stride``; each call forecasts from its last step. The window's statistics are those of the
    first ``look_back`` steps and stay, so chunks join exactly; start afresh to renew them. Resets inside a
    sequence and time steps (``dt``) are refused: the forecast of a window has one start and one sampling.

    Args:
        backbone: causal, width ``d_model``; reads (b * c, patches, d_model).
        channels: variates c.
        look_back: steps of the past that a forecast reads.
        horizon: steps to forecast.
        quantiles: increasing, each inside (0, 1); empty for the point alone.
        location: mean of each variate over the train data; None for zeros.
        scale: standard deviation of each variate over the train data (population); None for ones, a zero
            counts as one.
        patch: steps a patch; None takes 16, or the look-back where that is shorter; 1 in a closed loop.
        stride: steps from one patch to the next; None takes half a patch.
        head: whether the horizon is read from "all" patches' features, from the "last" one's, or by a
            "closed_loop"; None takes that where the backbone has one, else "all".
        dropout: chance that a feature in front of the head is dropped in training.
        stationary: whether level and size of a window mean nothing, as in a stationary process of known mean:
            then windows are scaled by the train statistics alone.

    Raises:
        ValueError: sizes that do not fit one another, or quantiles out of order.
    """

    objective: ClassVar[Objective] = Objective("mse", "lower")
    location: Tensor
    scale: Tensor
    levels: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        look_back: int,
        horizon: int,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        location: list[float] | None = None,
        scale: list[float] | None = None,
        patch: int | None = None,
        stride: int | None = None,
        head: Literal["all", "last", "closed_loop"] | None = None,
        dropout: float = 0.0,
        stationary: bool = False,
    ) -> None:
        super().__init__()
        if head is None:
            head = "closed_loop" if hasattr(backbone, "closed_loop") else "all"
        if patch is None:
            patch = 1 if head == "closed_loop" else min(16, look_back)
        stride = max(1, patch // 2) if stride is None else stride
        self._check(backbone, channels, look_back, horizon, quantiles, location, scale, patch, stride, head)
        self.channels, self.look_back, self.horizon, self.quantiles = channels, look_back, horizon, quantiles
        self.patch, self.stride, self.stationary = patch, stride, stationary
        self.patches = -(-(look_back - patch) // stride) + 1
        self.read = self.patches if head == "all" else 1
        self.first_chunk, self.chunk = look_back, stride
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        self.input = nn.Linear(patch, d_model)
        self.dropout = nn.Dropout(dropout)
        rolls = head == "closed_loop"
        self.roll_out = RollOut(d_model, dropout) if rolls else None
        self.point = None if rolls else nn.Linear(self.read * d_model, horizon)
        self.spreads = nn.Linear(d_model, horizon * len(quantiles)) if quantiles else None
        self.register_buffer("location", torch.tensor(location or [0.0] * channels))
        spread = torch.tensor(scale or [1.0] * channels)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)

    def init_state(self, batch: int, max_length: int | None = None) -> ForecastState:
        """The state before the first observation. ``max_length`` counts observations."""
        weight = self.input.weight
        patches = None if max_length is None else max(1, -(-(max_length - self.patch) // self.stride) + 1)
        zeros = weight.new_zeros
        return ForecastState(
            self.backbone.init_state(batch * self.channels, patches),
            zeros(batch, self.patch - self.stride, self.channels),
            zeros(batch, self.channels, self.read, self.backbone.d_model),
            zeros(batch, self.channels),
            zeros(batch, self.channels),
            zeros(batch),
        )

    def forward(
        self,
        inputs: Float[Tensor, "b t c"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b horizon c outputs"], ForecastState]:
        """The forecast from the last step, in raw units: index 0 is the point, then the quantiles."""
        self._refuse(inputs, state, resets, dt)
        rows, after = self._rows(inputs, state)
        features, inner = self.backbone(rows, None if state is None else after.backbone)
        after = self._after(after, features, inner)
        return self._forecast(after), after

    def step(
        self, inputs_t: Float[Tensor, "b c"], state: tuple, *, dt_t: Tensor | None = None
    ) -> tuple[Float[Tensor, "b horizon c outputs"], ForecastState]:
        """The forecast after one more observation: only where ``stride`` is 1."""
        return self(inputs_t[:, None], state, dt=None if dt_t is None else dt_t[:, None])

    def loss(self, batch: SeriesBatch) -> Float[Tensor, ""]:
        """Mean squared error of the point plus mean pinball loss of the quantiles, on scaled values.

        A closed loop's past adds its two errors.
        """
        aids: tuple[Tensor, ...] = ()
        if self.roll_out is None:
            raw, _ = self(batch.past)
        else:
            raw, aids = self._traced(batch.past, self.roll_out)
        forecast, target, seen = self._scaled(batch, raw)
        count = seen.sum().clamp(min=1)
        loss = (forecast[..., 0] - target).square().mul(seen).sum() / count
        for aid in aids:
            loss = loss + aid
        if self.spreads is not None:
            pinball = self._pinball(forecast, target).mean(-1)
            loss = loss + pinball.mul(seen).sum() / count
        return loss

    def metrics(self, batch: SeriesBatch) -> Mapping[str, Mean]:
        """ "mse", "mae" and "pinball" on scaled values; "coverage" of the outermost quantiles."""
        with torch.no_grad():
            forecast, target, seen = self._scaled(batch, self(batch.past)[0])
            count = int(seen.sum())
            error = (forecast[..., 0] - target)[seen]
            found = {
                "mse": Mean(exact_sum(error.square()), count),
                "mae": Mean(exact_sum(error.abs()), count),
            }
            if self.spreads is not None:
                pinball = self._pinball(forecast, target).mean(-1)[seen]
                inside = (target >= forecast[..., 1]) & (target <= forecast[..., -1])
                found["pinball"] = Mean(exact_sum(pinball), count)
                found["coverage"] = Mean(exact_sum(inside[seen]), count)
        return found

    def tokens(self, batch: Any) -> int:
        """Steps of the past, of all rows."""
        return batch.past.shape[0] * batch.past.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _rows(self, inputs: Tensor, state: tuple | None) -> tuple[Tensor, ForecastState]:
        """What the backbone reads, and the state so far with mean, spread and tail as they will be."""
        b, t, c = inputs.shape
        fresh = state is None or not bool(ForecastState(*state).started.all())
        before = self.init_state(b, t) if state is None else ForecastState(*state)
        values = (inputs - self.location) / self.scale
        mean, spread, start = before.mean, before.spread, before.tail
        if fresh:
            gap = (self.patches - 1) * self.stride + self.patch - self.look_back
            start = values.new_zeros(b, gap, c)
            mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
            if not self.stationary:
                mean, spread = _statistics(values[:, : self.look_back])
        normal = torch.nan_to_num((values - mean[:, None]) / spread[:, None], nan=0.0)
        normal = torch.cat([start, normal], 1)
        pieces = normal.unfold(1, self.patch, self.stride)  # b patches c patch
        tail = normal[:, normal.shape[1] - (self.patch - self.stride) :]
        so_far = before._replace(tail=tail, mean=mean, spread=spread)
        return self.input(pieces.transpose(1, 2).flatten(0, 1)), so_far

    def _after(self, so_far: ForecastState, features: Tensor, inner: tuple) -> ForecastState:
        """The state after the backbone has spoken."""
        b, c = so_far.mean.shape
        recent = torch.cat([so_far.features, features.unflatten(0, (b, c))], 2)[:, :, -self.read :]
        return so_far._replace(backbone=inner, features=recent, started=torch.ones_like(so_far.started))

    def _traced(self, past: Tensor, roll_out: RollOut) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The raw forecast, and the errors over the past of a backbone with a closed loop."""
        self._refuse(past, None, None, None)
        rows, so_far = self._rows(past, None)
        trace = self.backbone.trace(rows)
        values = (past - self.location) / self.scale
        size = torch.where(values.isnan(), 0.0, so_far.spread.square()[:, None])
        values = torch.nan_to_num((values - so_far.mean[:, None]) / so_far.spread[:, None], nan=0.0)
        start = min(self.backbone.decoder.a.shape[1], past.shape[1] // 2)
        values, size = (part.transpose(1, 2).flatten(0, 1) for part in (values, size))
        aids = roll_out.aids(trace, values, size, start)
        return self._forecast(self._after(so_far, trace.outputs, trace.state)), aids

    def _forecast(self, state: ForecastState) -> Tensor:
        mean, spread = state.mean, state.spread
        features = self.dropout(state.features)
        if self.roll_out is None:
            assert self.point is not None
            point = self.point(features.flatten(2))  # b c horizon
        else:
            outputs, _ = self.backbone.closed_loop(state.backbone, self.horizon)
            point = self.roll_out(outputs).unflatten(0, mean.shape)
        outputs = point[..., None]
        if self.spreads is not None:
            steps = self.spreads(features[:, :, -1]).unflatten(-1, (self.horizon, -1))
            outputs = torch.cat([outputs, point.detach()[..., None] + _ordered(steps)], -1)
        scaled = outputs * spread[..., None, None] + mean[..., None, None]
        raw = scaled * self.scale[:, None, None] + self.location[:, None, None]
        return raw.transpose(1, 2)

    def _scaled(self, batch: SeriesBatch, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forecast and future on the scale of the train data, and which of the future was seen."""
        wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
        forecast = (wide - self.location[:, None]) / self.scale[:, None]
        target = (batch.future - self.location) / self.scale
        seen = ~target.isnan()
        return forecast, torch.where(seen, target, 0.0), seen

    def _pinball(self, forecast: Tensor, target: Tensor) -> Tensor:
        """max(level * error, (level - 1) * error) for each quantile (b, horizon, c, q)."""
        error = target[..., None] - forecast[..., 1:]
        return torch.maximum(self.levels * error, (self.levels - 1) * error)

    def _refuse(self, inputs: Tensor, state: tuple | None, resets: Tensor | None, dt: Tensor | None) -> None:
        if resets is not None or dt is not None:
            raise ValueError(
                "a forecaster reads one window of evenly sampled values, so it takes neither resets nor dt. "
                "Split the series where it starts anew, and resample it where its steps differ."
            )
        t, fresh = inputs.shape[1], state is None or not bool(ForecastState(*state).started.all())
        if fresh and (t < self.look_back or (t - self.look_back) % self.stride):
            raise ValueError(
                f"a fresh forecast reads look_back={self.look_back} steps, or more by a multiple of "
                f"stride={self.stride}; got {t}. Cut the series, or fill its left with NaN."
            )
        if not fresh and t % self.stride:
            raise ValueError(
                f"a running forecast moves on by multiples of stride={self.stride} steps; got {t}. Collect "
                f"the observations, or build the model with stride=1."
            )

    @staticmethod
    def _check(
        backbone: nn.Module,
        channels: int,
        look_back: int,
        horizon: int,
        quantiles: tuple[float, ...],
        location: list[float] | None,
        scale: list[float] | None,
        patch: int,
        stride: int,
        head: str,
    ) -> None:
        if min(channels, look_back, horizon) < 1:
            raise ValueError(
                f"channels, look_back and horizon are 1 or more; got {channels}, {look_back} and {horizon}. "
                f"Correct the smallest."
            )
        if not 1 <= stride <= patch <= look_back:
            raise ValueError(
                f"patches lie inside the look-back and leave no gaps: 1 <= stride <= patch <= look_back; got "
                f"{stride}, {patch} and {look_back}. Shorten patch or stride."
            )
        if sorted(set(quantiles)) != list(quantiles) or not all(0 < level < 1 for level in quantiles):
            raise ValueError(
                f"quantiles are increasing levels inside (0, 1); got {quantiles}. Sort them, drop 0 and 1."
            )
        for name, values in (("location", location), ("scale", scale)):
            if values is not None and len(values) != channels:
                raise ValueError(
                    f"{name} holds one number for each of the {channels} variates; got {len(values)}. Take "
                    f"the train statistics of the same variates."
                )
        if head not in ("all", "last", "closed_loop"):
            raise ValueError(f"head is 'all', 'last' or 'closed_loop'; got {head!r}. Take one of these.")
        if head == "closed_loop" and not (hasattr(backbone, "closed_loop") and patch == 1 and look_back > 2):
            raise ValueError(
                f"a closed loop reads 3 steps or more one by one with a backbone that can run on; got "
                f"look_back={look_back}, patch={patch} and a {type(backbone).__name__}. Leave patch out and "
                f"build the backbone from a pattern such as closed_loop:space_time."
            )
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "a forecaster reads time in order; got a backbone that is not causal. Choose another."
            )
        if getattr(backbone, "variates", channels) != channels:
            raise ValueError(
                f"a backbone that reads all variates of a series together is built for as many as the data "
                f"has, {channels}; got one for {backbone.variates}. Give it variates={channels}."
            )

    @classmethod
    def example(cls) -> "ForecastingModel":
        """A small instance whose patches overlap and do not fill the look-back evenly."""
        return cls(
            Stack.example(),
            2,
            look_back=11,
            horizon=5,
            location=[1.0, -2.0],
            scale=[2.0, 0.5],
            patch=4,
            stride=2,
        )

    @classmethod
    def example_batch(cls) -> SeriesBatch:
        """Three windows, with a few values missing."""
        numbers = torch.Generator().manual_seed(0)
        series = torch.randn(3, 16, 2, generator=numbers).cumsum(1)
        series[0, 3, 0] = series[1, 14, 1] = float("nan")
        return SeriesBatch(series[:, :11], series[:, 11:])


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over time (b, c) of what was seen; zero and one where nothing was."""
    seen = ~values.isnan()
    count = seen.sum(1).clamp(min=1)
    known = torch.where(seen, values, 0.0)
    mean = known.sum(1) / count
    variance = torch.where(seen, values - mean[:, None], 0.0).square().sum(1) / count
    spread = (variance + _EPS).sqrt()
    return mean, torch.where(seen.any(1), spread, 1.0)


def _ordered(steps: Tensor) -> Tensor:
    """Increasing offsets (..., q) from free numbers: the middle as it is, the others by positive steps."""
    middle = steps.shape[-1] // 2
    centre = steps[..., middle : middle + 1]
    above = functional.softplus(steps[..., middle + 1 :]).cumsum(-1)
    below = functional.softplus(steps[..., :middle].flip(-1)).cumsum(-1).flip(-1)
    return torch.cat([centre - below, centre, centre + above], -1)

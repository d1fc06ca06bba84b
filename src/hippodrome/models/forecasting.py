"""The forecaster: a window of the past to a point and quantiles for every step of the horizon."""

from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models import _window
from hippodrome.models._covariates import Covariates
from hippodrome.models._forecast_check import check_call, check_inputs, check_numbers, check_parts, filled_in
from hippodrome.models._forecast_state import ForecastState, is_fresh
from hippodrome.models._roll_out import RollOut
from hippodrome.models._shares import shares
from hippodrome.models._shortcut import Shortcut
from hippodrome.models.base import Model, Objective, accepts_dt
from hippodrome.shapes import Mean, SeriesBatch


class ForecastingModel(Model):
    """Raw values in, a forecast of the whole horizon at once in raw units out.

    Each variate is scaled by its train statistics, then normalized by mean and deviation of its own
    look-back, and the forecast is mapped back the same way (reversible instance normalization: Kim et al.
    2022, ICLR, "Reversible instance normalization for accurate time-series forecasting against distribution
    shift", equations 1-3). Every variate is a sequence of its own that shares all weights, cut into patches
    which the backbone reads in order (Nie et al. 2022, arXiv 2211.14730, section 3.1). One linear map
    forecasts the horizon directly. With one patch as long as the look-back, and a backbone that reads across
    the variates (``backbones.inverted``), each variate is one token (Liu et al. 2023, arXiv 2310.06625).

    A backbone with a closed loop (``backbones.closed_loop``) instead reads every step and then runs on by
    itself; each of its outputs gives one value, so that the horizon costs no parameters. To the loss come the
    errors over the past of the open loop's next value and of the decoder's predicted next input, all three
    with weight one as published (there as roots of mean squares).

    The forecast (b, horizon, c, 1 + q) holds the point, trained by squared error, and then the quantiles,
    trained by pinball loss (Koenker and Bassett 1978), which cannot cross: the middle one is free, each
    of the others is a positive step away from its neighbour.

    A missing value is NaN. In the past it is left out of the statistics and then read as zero, i.e. as the
    mean of its window; in the future it is left out of loss and metrics. A past that is shorter than
    ``look_back`` is filled with NaN on the left by the caller.

    Streaming: a fresh state takes ``look_back`` steps or more by a multiple of ``stride``, later calls take
    multiples of ``stride``; each call forecasts from its last step. The window's statistics are those of the
    first ``look_back`` steps and stay, so chunks join exactly; start afresh to renew them. A backbone that
    reads both ways reads the patches of the look-back anew at each call. Resets are refused: a window has one
    start. Time steps ``dt`` reach a causal backbone whose mixers have continuous time, a token's being the
    mean of those of its new steps.

    Args:
        backbone: width ``d_model``; reads (b * r, patches, d_model), r the rows of a series: its variates,
            and its moving covariates where these are rows. None for the shortcut alone.
        channels: variates c.
        look_back: steps of the past that a forecast reads.
        horizon: steps to forecast.
        quantiles: increasing, each inside (0, 1); empty for the point alone.
        location: mean of each variate over the train data; None for zeros.
        scale: their deviations over it (population); None for ones, a zero counts as one.
        patch: steps a patch; None takes 16, or the look-back where that is shorter; 1 in a closed loop; the
            look-back where the backbone's tokens are variates.
        stride: steps from one patch to the next; None takes half a patch; 1 where the backbone's tokens are
            variates.
        head: whether the horizon is read from "all" patches' features, from the "last" one's, or by a
            "closed_loop"; None takes that where the backbone has one, else "all".
        dropout: chance that a feature in front of the head is dropped in training.
        normalization: of a window: by mean and deviation ("window"), by its mean ("level") or its last value
            ("last") alone, or "none", where level and size of a window mean nothing, as in a stationary
            process of known mean, or are to be learned.
        observed: p, covariates seen in the past alone; in the inputs they follow the variates.
        known: k, covariates known ahead too; in the inputs they come last, their future is ``known``.
        static: s, covariates that do not change.
        covariate_location: means over the train data of the observed, then the known covariates.
        covariate_scale: their deviations; so of the static ones over the series:
        static_location: means.
        static_scale: deviations.
        covariates: whether covariates of the past are "added" to the tokens of every variate, or are rows
            beside the "variates", for a backbone that reads across them.
        affine: whether each variate has a learned scale and shift behind the normalization, undone at the
            end.
        positions: whether learned positions are added to the patches, for a backbone that reads both ways.
        shortcut: steps of the moving average of a linear map from look-back to horizon whose forecast is
            added (``_shortcut``); None for none.
        error: what the point is trained by, "squared" or "absolute".

    Raises:
        ValueError: sizes that do not fit one another, or quantiles out of order.
    """

    objective: ClassVar[Objective] = Objective("mse", "lower")
    location: Tensor
    scale: Tensor
    levels: Tensor

    def __init__(
        self,
        backbone: nn.Module | None,
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
        normalization: _window.Normalization = "window",
        observed: int = 0,
        known: int = 0,
        static: int = 0,
        covariate_location: list[float] | None = None,
        covariate_scale: list[float] | None = None,
        static_location: list[float] | None = None,
        static_scale: list[float] | None = None,
        covariates: Literal["added", "variates"] = "added",
        affine: bool = False,
        positions: bool = False,
        shortcut: int | None = None,
        error: Literal["squared", "absolute"] = "squared",
    ) -> None:
        super().__init__()
        patch, stride, reading = filled_in(backbone, look_back, patch, stride, head)
        self.rows = channels + (observed + known if covariates == "variates" else 0)
        check_numbers(channels, look_back, horizon, quantiles, location, scale)
        words = (reading, normalization, covariates, error)
        check_parts(backbone, self.rows, look_back, patch, stride, words, positions, shortcut)
        self.channels, self.look_back, self.horizon, self.quantiles = channels, look_back, horizon, quantiles
        self.patch, self.stride, self.normalization, self.error = patch, stride, normalization, error
        self.patches = -(-(look_back - patch) // stride) + 1
        self.read = self.patches if reading == "all" else 1
        self.first_chunk, self.chunk = look_back, stride
        self.backbone = backbone
        self.streams: bool = getattr(backbone, "causal", True)
        self.width: int = 0 if backbone is None else backbone.d_model  # type: ignore[assignment]
        if backbone is None and observed + known + static:
            raise ValueError(
                "covariates are told to a backbone's tokens; got some and no backbone. Leave them out, or "
                "give a backbone."
            )
        rolls = reading == "closed_loop"
        self.input = nn.Linear(patch, self.width) if self.width else None
        self.dropout = nn.Dropout(dropout)
        self.roll_out = RollOut(self.width, dropout) if rolls else None
        reads = self.read * self.width
        self.point = nn.Linear(reads, horizon) if reads and not rolls else None
        self.spreads = nn.Linear(self.width or look_back, horizon * len(quantiles)) if quantiles else None
        self.shortcut = None if shortcut is None else Shortcut(look_back, horizon, shortcut)
        self.covariates = None
        if observed + known + static:
            moving = (observed, known, static, covariate_location, covariate_scale)
            told = covariates == "added"
            self.covariates = Covariates(self.width, patch, *moving, static_location, static_scale, told)
        self.gain = nn.Parameter(torch.ones(channels)) if affine else None
        self.shift = nn.Parameter(torch.zeros(channels)) if affine else None
        self.positions = nn.Parameter(0.02 * torch.randn(self.patches, self.width)) if positions else None
        self.register_buffer("location", torch.tensor(location or [0.0] * channels))
        spread = torch.tensor(scale or [1.0] * channels)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)

    @property
    def moving(self) -> int:
        """Covariates beside the variates in the inputs."""
        return 0 if self.covariates is None else self.covariates.observed + self.covariates.known

    def init_state(self, batch: int, max_length: int | None = None) -> ForecastState:
        """The state before the first observation. ``max_length`` counts observations."""
        patches = None if max_length is None else max(1, -(-(max_length - self.patch) // self.stride) + 1)
        reads = self.backbone is not None and self.streams
        return self._blank(batch, self.backbone.init_state(batch * self.rows, patches) if reads else ())

    def _blank(self, batch: int, backbone: tuple) -> ForecastState:
        zeros = self.location.new_zeros
        return ForecastState(
            backbone,
            zeros(batch, self.patch - self.stride if self.width else 0, self.channels + self.moving),
            zeros(batch, self.rows, 0 if self.streams else self.patches, self.width),
            zeros(batch, self.channels, self.read, self.width),
            zeros(batch, 0 if self.shortcut is None else self.look_back, self.channels),
            zeros(batch, 0 if self.covariates is None else self.covariates.context),
            *(zeros(batch, self.channels), zeros(batch, self.channels), zeros(batch)),
        )

    def forward(
        self,
        inputs: Float[Tensor, "b t v"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
        known: Float[Tensor, "b horizon k"] | None = None,
        static: Float[Tensor, "b s"] | None = None,
    ) -> tuple[Float[Tensor, "b horizon c outputs"], ForecastState]:
        """The forecast from the last step, in raw units. ``static`` is said once, at a stream's start."""
        self._refuse(inputs, state, resets, dt, known, static)
        after = self._read(inputs, state, dt, static)
        return self._forecast(after, known), after

    def step(
        self,
        inputs_t: Float[Tensor, "b v"],
        state: tuple,
        *,
        dt_t: Tensor | None = None,
        known: Float[Tensor, "b horizon k"] | None = None,
    ) -> tuple[Float[Tensor, "b horizon c outputs"], ForecastState]:
        """The forecast after one more observation, where ``stride`` is 1."""
        return self(inputs_t[:, None], state, dt=None if dt_t is None else dt_t[:, None], known=known)

    def components(
        self,
        inputs: Float[Tensor, "b t v"],
        *,
        dt: Tensor | None = None,
        known: Float[Tensor, "b horizon k"] | None = None,
        static: Float[Tensor, "b s"] | None = None,
    ) -> dict[str, Float[Tensor, "b horizon c"]]:
        """What the point forecast of a window is the sum of, by name, in raw units: "level", which the
        normalization took off, and the shares of the parts."""
        self._refuse(inputs, None, None, dt, known, static)
        after = self._read(inputs, None, dt, static)
        parts = self._parts(after, known)
        level = self._raw(next(iter(parts.values())).new_zeros(1), after).expand(-1, self.horizon, -1, -1)
        found = {name: self._raw(part[..., None], after) - level for name, part in parts.items()}
        return {name: part[..., 0] for name, part in {"level": level, **found}.items()}

    def loss(self, batch: SeriesBatch) -> Float[Tensor, ""]:
        """Mean error of the point plus mean pinball loss of the quantiles, on scaled values, plus the errors
        of a closed loop's past."""
        aids: tuple[Tensor, ...] = ()
        if self.roll_out is None:
            raw = self._of(batch)
        else:
            raw, aids = self._traced(batch, self.roll_out)
        forecast, target, seen = _window.on_scale(raw, batch.future, self.location, self.scale)
        count = seen.sum().clamp(min=1)
        error = forecast[..., 0] - target
        error = error.square() if self.error == "squared" else error.abs()
        loss = error.mul(seen).sum() / count + sum(aids)
        if self.spreads is not None:
            loss = loss + _window.pinball(forecast[..., 1:], target, self.levels).mul(seen).sum() / count
        return loss

    def metrics(self, batch: SeriesBatch) -> Mapping[str, Mean]:
        """ "mse", "mae" and "pinball" on scaled values; "coverage" of the outermost quantiles."""
        with torch.no_grad():
            scaled = _window.on_scale(self._of(batch), batch.future, self.location, self.scale)
            return _window.measured(*scaled, self.levels)

    def tokens(self, batch: Any) -> int:
        """Steps of the past."""
        return batch.past.shape[0] * batch.past.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the backbone."""
        return [] if self.backbone is None else self.backbone.parameter_groups()

    def _of(self, batch: SeriesBatch) -> Tensor:
        return self(batch.past, dt=batch.dt, known=batch.known, static=batch.static)[0]

    def _rows(
        self, inputs: Tensor, state: tuple | None, dt: Tensor | None, static: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, ForecastState]:
        """What the backbone reads and at which pace, and the state so far with all but what it will say."""
        fresh = is_fresh(state)
        before = self._blank(len(inputs), ()) if state is None else ForecastState(*state)
        values = (inputs[..., : self.channels] - self.location) / self.scale
        mean, spread, start, context = before.mean, before.spread, before.tail, before.context
        if fresh:
            gap = (self.patches - 1) * self.stride + self.patch - self.look_back
            start = values.new_zeros(len(inputs), gap, inputs.shape[-1])
            mean, spread = _window.statistics(values[:, : self.look_back], self.normalization)
            if static is not None and self.covariates is not None:
                context = self.covariates.fixed_term(static)
        after = before._replace(context=context, mean=mean, spread=spread)
        normal = self._normal(values, after)
        if self.shortcut is not None:
            after = after._replace(window=_window.latest(before.window, normal, 1))
        if self.input is None:
            return None, None, after
        if self.covariates is not None and self.moving:
            normal = torch.cat([normal, self.covariates.scaled(inputs[..., self.channels :])], -1)
        normal = torch.cat([start, normal], 1)
        pieces = normal.unfold(1, self.patch, self.stride)  # b patches v patch
        tokens = self.input(pieces[:, :, : self.rows].transpose(1, 2))
        if self.covariates is not None and self.covariates.past is not None:
            tokens = tokens + self.covariates.past_term(pieces[:, :, self.channels :])[:, None]
        if context.shape[1]:
            tokens = tokens + context[:, None, None]
        cut = (self.look_back - (self.patches - 1) * self.stride if fresh else 0, self.stride, self.rows)
        pace = None if dt is None else _window.paces(dt, *cut)
        after = after._replace(tail=normal[:, normal.shape[1] - (self.patch - self.stride) :])
        if not self.streams:
            window = _window.latest(before.tokens, tokens, 2)
            after = after._replace(tokens=window)
            tokens = window if self.positions is None else window + self.positions
        return tokens.flatten(0, 1), pace, after

    def _read(
        self, inputs: Tensor, state: tuple | None, dt: Tensor | None, static: Tensor | None
    ) -> ForecastState:
        """The state after the inputs: all that a forecast needs."""
        rows, pace, so_far = self._rows(inputs, state, dt, static)
        if self.backbone is None:
            return self._after(so_far, None, ())
        if not self.streams:
            return self._after(so_far, self.backbone(rows)[0], ())
        inner = None if state is None else so_far.backbone
        return self._after(so_far, *self.backbone(rows, inner, dt=pace))

    def _after(self, so_far: ForecastState, features: Tensor | None, inner: tuple) -> ForecastState:
        """The state after the backbone has spoken."""
        recent = so_far.features
        if features is not None:
            said = features.unflatten(0, (-1, self.rows))[:, : self.channels]
            recent = _window.latest(recent, said, 2)
        return so_far._replace(backbone=inner, features=recent, started=torch.ones_like(so_far.started))

    def _traced(self, batch: SeriesBatch, roll_out: RollOut) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The raw forecast, and the errors of a closed loop over the past."""
        self._refuse(batch.past, None, None, batch.dt, batch.known, batch.static)
        rows, _, so_far = self._rows(batch.past, None, None, batch.static)
        trace = self.backbone.trace(rows)  # type: ignore[union-attr,operator]
        values = (batch.past[..., : self.channels] - self.location) / self.scale
        size = torch.where(values.isnan(), 0.0, so_far.spread.square()[:, None])
        values, size = (part.transpose(1, 2).flatten(0, 1) for part in (self._normal(values, so_far), size))
        start = min(self.backbone.decoder.a.shape[1], values.shape[1] // 2)  # type: ignore[union-attr,operator]
        aids = roll_out.aids(trace, values, size, start)
        return self._forecast(self._after(so_far, trace.outputs, trace.state), batch.known), aids

    def _parts(self, state: ForecastState, known: Tensor | None) -> dict[str, Tensor]:
        """What the normalized point (b, c, horizon) is the sum of."""
        found = {}
        if self.roll_out is not None:
            outputs, _ = self.backbone.closed_loop(state.backbone, self.horizon)  # type: ignore[union-attr,operator]
            found["backbone"] = self.roll_out(outputs).unflatten(0, state.mean.shape)
        elif self.point is not None:
            found |= shares(self.point, self.dropout(state.features), self.backbone)
        if self.shortcut is not None:
            trend, remainder = self.shortcut(state.window.transpose(1, 2))
            found |= {"trend": trend} if remainder is None else {"trend": trend, "remainder": remainder}
        if known is not None and self.covariates is not None:
            found["known"] = self.covariates.ahead_term(known, state.features[:, :, -1])
        return found

    def _forecast(self, state: ForecastState, known: Tensor | None) -> Tensor:
        point = reduce(torch.add, self._parts(state, known).values())  # b c horizon
        outputs = point[..., None]
        if self.spreads is not None:
            features = self.dropout(state.features[:, :, -1]) if self.width else state.window.transpose(1, 2)
            steps = self.spreads(features).unflatten(-1, (self.horizon, -1))
            outputs = torch.cat([outputs, point.detach()[..., None] + _window.ordered(steps)], -1)
        return self._raw(outputs, state)

    def _normal(self, values: Tensor, state: ForecastState) -> Tensor:
        """Scaled values (b, t, c) on the scale of their window; zero, its mean, where they are missing."""
        normal = torch.nan_to_num((values - state.mean[:, None]) / state.spread[:, None], nan=0.0)
        if self.gain is None or self.shift is None:
            return normal
        return normal * self.gain + self.shift

    def _raw(self, normal: Tensor, state: ForecastState) -> Tensor:
        """What stands on the normalized scale (b, c, horizon, outputs) in raw units, the horizon first."""
        if self.gain is not None and self.shift is not None:
            normal = (normal - self.shift[:, None, None]) / self.gain[:, None, None]
        scaled = normal * state.spread[..., None, None] + state.mean[..., None, None]
        return (scaled * self.scale[:, None, None] + self.location[:, None, None]).transpose(1, 2)

    def _refuse(
        self,
        inputs: Tensor,
        state: tuple | None,
        resets: Tensor | None,
        dt: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> None:
        streams = self.streams and self.roll_out is None and self.backbone is not None
        timed = dt is not None and streams and accepts_dt(self.backbone)
        check_call(resets, dt, timed, inputs.shape[1], is_fresh(state), self.look_back, self.stride)
        check_inputs(self.covariates, self.channels, inputs, known, static, is_fresh(state))

    @classmethod
    def example(cls) -> "ForecastingModel":
        """A small instance whose patches overlap and do not fill the look-back evenly."""
        return cls(Stack.example(), 2, 11, 5, (0.1, 0.5, 0.9), [1.0, -2.0], [2.0, 0.5], patch=4, stride=2)

    @classmethod
    def example_batch(cls) -> SeriesBatch:
        """Three windows, with a few values missing."""
        numbers = torch.Generator().manual_seed(0)
        series = torch.randn(3, 16, 2, generator=numbers).cumsum(1)
        series[0, 3, 0] = series[1, 14, 1] = float("nan")
        return SeriesBatch(series[:, :11], series[:, 11:])

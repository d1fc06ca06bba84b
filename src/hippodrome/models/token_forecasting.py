"""The forecaster over a language model: segments of a series are its tokens, each foretells the next."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.layers.linear_experts import LinearExperts
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models import _prompts, _window
from hippodrome.models._forecast_check import check_numbers
from hippodrome.models.base import Model, Objective
from hippodrome.shapes import Mean, SeriesBatch


class TokenForecastState(NamedTuple):
    """What a stream of observations leaves behind.

    ``backbone`` has b * c rows. ``window`` holds the last ``look_back`` observations in raw units, zero where
    ``seen`` is 0. ``mean`` and ``spread`` normalize; they come from the first ``look_back`` steps of the
    stream and stay, which is what ``started`` (0 or 1) tells.
    """

    backbone: tuple
    window: Float[Tensor, "b look_back c"]
    seen: Float[Tensor, "b look_back c"]
    mean: Float[Tensor, "b c"]
    spread: Float[Tensor, "b c"]
    started: Float[Tensor, "b"]


class TokenForecastingModel(Model):
    """Raw values in; the next segment at every segment of the past; the horizon by rolling on.

    SMETimes: Fan, Li, Weng, Zhou 2025, "Small but mighty: enhancing time series forecasting with lightweight
    LLMs", arXiv 2503.03594, as its released code has it. Each variate is scaled by its train statistics, then
    normalized by mean and deviation of its look-back, and is a sequence of its own that shares all weights.
    It is cut into segments that do not overlap; a segment x with the prompt p becomes the token

        e = a (W x + b) + (1 - a) LM(p),    a = sigmoid(g),    g = 0 at first,

    where LM(p) is the last feature of a frozen language model that has read p: the segment's length, mean,
    deviation and change in words (``_prompts``). The backbone reads the tokens in order, ``experts`` linear
    maps under a dense gate read what it says, and one more map gives the next segment, at every token:

        y = V sum_k softmax(G h + c)_k W_k h + v.

    Training minimises the mean squared error of all of these on the scale of the train data; of the future it
    reads one segment. A forecast beyond one segment appends its point to the window, drops as many steps on
    the left, and forecasts again, with statistics and prompts of the window as it then is.

    A language model comes in with its weights (``start_from`` of ``runs.train``; ``models._language_part``).
    With ``frozen`` it stays as it is and reads prompts and tokens; without, the backbone trains, and where
    there are prompts a copy of it (``reader``) that stays as it was reads them. What a prompt says depends on
    the prompt alone, so features are kept and used again.

    Not as in the released code: a prompt is of its own variate, where there the last variate's is given to
    all; it holds no dates; the prompt of a forecast segment comes from the forecast, where there it is made
    of the future itself, which at forecasting is unknown; a single expert has no gate.

    The forecast (b, horizon, c, 1 + q) holds the point and then the quantiles, which cannot cross and are
    ours, not the paper's: each segment's are given the points in front of it, so beyond the first segment
    they leave out that those are uncertain too. Missing values are NaN: left out of statistics and prompts,
    then read as the mean of the window, and left out of loss and metrics.

    Streaming: a fresh state takes ``look_back`` steps or more by a multiple of ``segment``, later calls take
    multiples of it; the statistics of the first ``look_back`` steps stay. Resets, time steps and covariates
    are refused.

    Args:
        backbone: causal, width ``d_model``; reads (b * c, segments, d_model).
        channels: variates c.
        look_back: steps of the past that a forecast reads; filled up on the left to whole segments.
        horizon: steps to forecast.
        quantiles: increasing, each inside (0, 1); empty for the point alone.
        location: mean of each variate over the train data; None for zeros.
        scale: standard deviation of each variate over the train data; None for ones.
        segment: steps a token.
        prompts: whether tokens hold the features of their segments' texts.
        fusion: the share a of the series in a token; None learns it. Only with prompts.
        experts: linear maps behind the backbone.
        frozen: whether the backbone stays as it is.
        vocab_size: token ids of the language model.
        spelling: token id of each character of ``_prompts.ALPHABET``; None for its byte.
        embedding_scale: of what the language model's embedding gives.

    Raises:
        ValueError: sizes that do not fit one another, quantiles out of order, a backbone that is not causal,
            a share outside [0, 1] or without prompts, or a spelling that does not fit the vocabulary.
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
        segment: int = 96,
        prompts: bool = False,
        fusion: float | None = None,
        experts: int = 1,
        frozen: bool = False,
        vocab_size: int = 256,
        spelling: list[int] | None = None,
        embedding_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_numbers(channels, look_back, horizon, quantiles, location, scale)
        _check(backbone, look_back, segment, prompts, fusion)
        self.channels, self.look_back, self.horizon, self.quantiles = channels, look_back, horizon, quantiles
        self.segment, self.fusion, self.frozen = segment, fusion, frozen
        self.first_chunk, self.chunk = look_back, segment
        # What jobs ask of any forecaster: it moves on by segments, and reads nothing beside the variates.
        self.stride, self.streams, self.moving, self.covariates = segment, True, 0, None
        self.gap = -look_back % segment
        self.ids = _prompts.spelt(spelling, vocab_size) if prompts else None
        self.embedding_scale = embedding_scale
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        self.embedding = nn.Embedding(vocab_size, d_model) if prompts else None
        self.reader = copy.deepcopy(backbone) if prompts and not frozen else None
        self.features = _prompts.Features()
        self.segments = nn.Linear(segment, d_model)
        self.gate = nn.Parameter(torch.zeros(())) if prompts and fusion is None else None
        self.experts = LinearExperts(d_model, d_model, experts)
        self.point = nn.Linear(d_model, segment)
        self.spreads = nn.Linear(d_model, segment * len(quantiles)) if quantiles else None
        self.register_buffer("location", torch.tensor(location or [0.0] * channels))
        spread = torch.tensor(scale or [1.0] * channels)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.register_buffer("levels", torch.tensor(quantiles), persistent=False)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=0.02)
        for part in self._still():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> "TokenForecastingModel":
        """Training mode for what trains; a language model that stays as it is drops nothing."""
        super().train(mode)
        for part in self._still():
            part.eval()
        return self

    @property
    def share(self) -> Float[Tensor, ""]:
        """a, the share of the series in a token; one without prompts."""
        if self.gate is not None:
            return self.gate.sigmoid()
        return self.location.new_tensor(1.0 if self.fusion is None else self.fusion)

    def init_state(self, batch: int, max_length: int | None = None) -> TokenForecastState:
        """The state before the first observation. ``max_length`` counts observations."""
        tokens = None if max_length is None else max(1, -(-max_length // self.segment))
        zeros = self.location.new_zeros
        return TokenForecastState(
            self.backbone.init_state(batch * self.channels, tokens),
            zeros(batch, self.look_back, self.channels),
            zeros(batch, self.look_back, self.channels),
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
        known: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b horizon c outputs"], TokenForecastState]:
        """The forecast from the last step, in raw units: index 0 is the point, then the quantiles."""
        fresh = state is None or not bool(TokenForecastState(*state).started.all())
        self._refuse(inputs, fresh, resets, dt, known, static)
        before = self.init_state(*inputs.shape[:2]) if state is None else TokenForecastState(*state)
        mean, spread = self._statistics(inputs) if fresh else (before.mean, before.spread)
        said, inner = self._said(inputs, mean, spread, None if state is None else before.backbone, fresh)
        outputs = [self._outputs(said[:, :, -1:], mean, spread)[:, :, 0]]
        seen = ~inputs.isnan()
        window = torch.cat([before.window, inputs.nan_to_num(nan=0.0)], 1)[:, -self.look_back :]
        seen = torch.cat([before.seen, seen.to(before.seen)], 1)[:, -self.look_back :]
        after = TokenForecastState(inner, window, seen, mean, spread, torch.ones_like(before.started))
        rolled = torch.where(seen > 0, window, torch.nan)
        while len(outputs) * self.segment < self.horizon:
            ahead = self._raw(outputs[-1])[..., 0].transpose(1, 2)
            rolled = torch.cat([rolled, ahead], 1)[:, -self.look_back :]
            mean, spread = self._statistics(rolled)
            said, _ = self._said(rolled, mean, spread, None, True)
            outputs.append(self._outputs(said[:, :, -1:], mean, spread)[:, :, 0])
        forecast = torch.cat(outputs, 2)[:, :, : self.horizon]
        return self._raw(forecast).transpose(1, 2), after

    def step(
        self, inputs_t: Float[Tensor, "b c"], state: tuple, *, dt_t: Tensor | None = None
    ) -> tuple[Float[Tensor, "b horizon c outputs"], TokenForecastState]:
        """The forecast after one more observation: only where ``segment`` is 1."""
        return self(inputs_t[:, None], state, dt=None if dt_t is None else dt_t[:, None])

    def loss(self, batch: SeriesBatch) -> Float[Tensor, ""]:
        """Mean squared error of the next segment after every segment of the past, plus the mean pinball loss
        of its quantiles, on scaled values."""
        past = batch.past
        self._refuse(past, True, None, batch.dt, batch.known, batch.static)
        mean, spread = self._statistics(past)
        said, _ = self._said(past, mean, spread, None, True)
        forecast = self._outputs(said, mean, spread)
        ahead = batch.future[:, : self.segment]
        if ahead.shape[1] < self.segment:
            rest = ahead.new_full((len(ahead), self.segment - ahead.shape[1], self.channels), torch.nan)
            ahead = torch.cat([ahead, rest], 1)
        values = self._pieces(torch.cat([past[:, self.segment - self.gap :], ahead], 1))
        target = (values - self.location[:, None, None]) / self.scale[:, None, None]
        seen = ~target.isnan()
        target, count = torch.where(seen, target, 0.0), seen.sum().clamp(min=1)
        loss = (forecast[..., 0] - target).square().mul(seen).sum() / count
        if self.spreads is not None:
            loss = loss + _window.pinball(forecast[..., 1:], target, self.levels).mul(seen).sum() / count
        return loss

    def metrics(self, batch: SeriesBatch) -> Mapping[str, Mean]:
        """ "mse", "mae" and "pinball" of the horizon on scaled values; "coverage" of the outer quantiles."""
        with torch.no_grad():
            raw, _ = self(batch.past, dt=batch.dt, known=batch.known, static=batch.static)
            scaled = _window.on_scale(raw, batch.future, self.location, self.scale)
            return _window.measured(*scaled, self.levels)

    def tokens(self, batch: Any) -> int:
        """Steps of the past, of all rows."""
        return batch.past.shape[0] * batch.past.shape[1]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside, where they train."""
        return [] if self.frozen else self.backbone.parameter_groups()

    def _still(self) -> list[nn.Module]:
        """The parts that do not train."""
        held = (self.embedding, self.reader, self.backbone if self.frozen else None)
        return [part for part in held if part is not None]

    def _statistics(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread (b, c) of scaled values over the first look-back."""
        values = (raw[:, : self.look_back] - self.location) / self.scale
        return _window.statistics(values, "window")

    def _pieces(self, raw: Float[Tensor, "b t c"]) -> Float[Tensor, "b c tokens segment"]:
        return raw.unflatten(1, (-1, self.segment)).permute(0, 3, 1, 2).contiguous()

    def _said(
        self, raw: Tensor, mean: Tensor, spread: Tensor, state: tuple | None, fresh: bool
    ) -> tuple[Float[Tensor, "b c tokens d"], tuple]:
        """What the experts say of each segment, and the backbone's state."""
        if fresh and self.gap:
            raw = torch.cat([raw.new_full((len(raw), self.gap, self.channels), torch.nan), raw], 1)
        pieces = self._pieces(raw)
        scaled = (pieces - self.location[:, None, None]) / self.scale[:, None, None]
        normal = (scaled - mean[..., None, None]) / spread[..., None, None]
        tokens = self.segments(normal.nan_to_num(nan=0.0))
        if self.ids is not None:
            share = self.share.to(tokens)
            tokens = share * tokens + (1 - share) * self._text(pieces).to(tokens)
        features, inner = self.backbone(tokens.flatten(0, 1), state)
        return self.experts(features).unflatten(0, mean.shape), inner

    def _text(self, pieces: Float[Tensor, "b c tokens segment"]) -> Float[Tensor, "b c tokens d"]:
        """What the language model says of each segment's prompt."""
        embedding, ids = self.embedding, self.ids
        assert embedding is not None
        assert ids is not None
        reader: nn.Module = self.backbone if self.reader is None else self.reader
        weights = [embedding.weight, *reader.parameters(), *reader.buffers()]
        place = embedding.weight.device

        def features(codes: Tensor) -> Tensor:
            return reader(embedding(codes) * self.embedding_scale)[0]

        def read(texts: list[str]) -> Tensor:
            # What is kept must not depend on the precision of the call that happened to ask first.
            with torch.autocast(place.type, enabled=False):
                return _prompts.read_last(features, texts, ids, place)

        found = self.features.of(_prompts.prompts(pieces), weights, read)
        return found.unflatten(0, pieces.shape[:3])

    def _outputs(
        self, said: Tensor, mean: Tensor, spread: Tensor
    ) -> Float[Tensor, "b c tokens segment outputs"]:
        """Point and quantiles of the next segment on the scale of the train data."""
        point = self.point(said)
        outputs = point[..., None]
        if self.spreads is not None:
            steps = self.spreads(said).unflatten(-1, (self.segment, -1))
            outputs = torch.cat([outputs, point.detach()[..., None] + _window.ordered(steps)], -1)
        return outputs * spread[..., None, None, None] + mean[..., None, None, None]

    def _raw(self, scaled: Float[Tensor, "b c t outputs"]) -> Float[Tensor, "b c t outputs"]:
        return scaled * self.scale[:, None, None] + self.location[:, None, None]

    def _refuse(
        self,
        inputs: Tensor,
        fresh: bool,
        resets: Tensor | None,
        dt: Tensor | None,
        known: Tensor | None,
        static: Tensor | None,
    ) -> None:
        t = inputs.shape[1]
        if resets is not None or dt is not None:
            raise ValueError(
                "a window has one start and even steps, so this forecaster takes neither resets nor dt. "
                "Split the series where it starts anew, and resample it where its steps differ."
            )
        if known is not None or static is not None or inputs.shape[-1] != self.channels:
            raise ValueError(
                f"this forecaster reads the {self.channels} variates that it forecasts, and no covariates; "
                f"got {inputs.shape[-1]} columns. Leave the others out, or take the kind forecasting."
            )
        if fresh and (t < self.look_back or (t - self.look_back) % self.segment):
            raise ValueError(
                f"a fresh forecast reads look_back={self.look_back} steps, or more by a multiple of "
                f"segment={self.segment}; got {t}. Cut the series, or fill its left with NaN."
            )
        if not fresh and t % self.segment:
            raise ValueError(
                f"a running forecast moves on by multiples of segment={self.segment} steps; got {t}. Collect "
                f"the observations of a segment first."
            )

    @classmethod
    def example(cls) -> "TokenForecastingModel":
        """A small instance without a language model, whose segments do not fill the look-back evenly."""
        return cls(
            Stack.example(),
            2,
            look_back=11,
            horizon=5,
            location=[1.0, -2.0],
            scale=[2.0, 0.5],
            segment=3,
            experts=2,
        )

    @classmethod
    def example_batch(cls) -> SeriesBatch:
        """Three windows, with a few values missing."""
        numbers = torch.Generator().manual_seed(0)
        series = torch.randn(3, 16, 2, generator=numbers).cumsum(1)
        series[0, 3, 0] = series[1, 14, 1] = float("nan")
        return SeriesBatch(series[:, :11], series[:, 11:])


def _check(backbone: Any, look_back: int, segment: int, prompts: bool, fusion: float | None) -> None:
    if not 1 <= segment <= look_back:
        raise ValueError(
            f"a token is a segment of 1 step or more inside the look-back of {look_back}; got {segment}. "
            "Shorten the segment, or read more of the past."
        )
    if not getattr(backbone, "causal", True):
        raise ValueError(
            "each token foretells the next segment, so the backbone must be causal; got one that reads both "
            "ways. Choose another, or the kind forecasting."
        )
    if fusion is not None and not prompts:
        raise ValueError(
            f"fusion is the share of the series beside prompts; got {fusion} and no prompts. Leave it out."
        )
    if fusion is not None and not 0 <= fusion <= 1:
        raise ValueError(f"fusion is a share from 0 to 1; got {fusion}. Leave it out to have it learned.")

"""The sequence classifier: a variable number of steps, of values or of tokens, or two such, to one class."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._padded import padded_features
from hippodrome.models._pooled import PooledState, mean_and_last, nothing_pooled, running_mean
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.shapes import LabelledBatch, Mean


class ClassificationModel(Model):
    """Values or tokens, backbone, pooling over the steps so far, linear head.

    ``forward`` gives logits at every step, (b, t, classes): those of the sequence up to there, so that a
    stream has a running answer and chunks join. The answer for a row is the logits at its last valid step,
    which is what ``logits``, ``loss`` and ``metrics`` use; steps behind it change nothing. Over a backbone
    that reads later steps too there is no running answer: ``forward`` and ``step`` refuse, the rest stands.

    With ``pairs`` a class is of two sequences: rows 2i and 2i + 1 of all inputs, lengths and states are pair
    i, and outputs have a row a pair, half as many. The same backbone reads both, neither sees the other, and
    of their pooled features e and f the head reads [e, f, e f, e - f] through one hidden layer of width
    ``d_model``: the two towers of the Long Range Arena (Tay et al. 2020, arXiv 2011.04006, section 2.2.3),
    where the hidden layers are two. The running answer at step t is that of both sequences up to there.

    Args:
        backbone: of width ``d_model``; where it is not causal, only whole sequences have an answer.
        classes: names of the classes, in the order of the labels.
        channels: values a step; None for token sequences.
        vocab_size: number of token ids; None for values. One of the two is given.
        pooling: "mean" of the features since the last reset, the "last" feature, or "both", side by side.
        location: mean of each channel over the train data, taken off before anything else; None for zeros.
        scale: standard deviation of each channel over the train data; None for ones, a zero counts as one.
        pairs: whether a class is of two sequences.

    A missing value (NaN) is read as the channel's mean. A batch's time steps reach the backbone where every
    mixer in it has continuous time; another one has no use for them and reads the values alone.

    Raises:
        ValueError: not exactly one of ``channels`` and ``vocab_size``, fewer than two classes, or lists that
            do not fit the channels.
    """

    objective: ClassVar[Objective] = Objective("accuracy", "higher", then="nats")
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classes: list[str],
        channels: int | None = None,
        vocab_size: int | None = None,
        pooling: Literal["mean", "last", "both"] = "both",
        location: list[float] | None = None,
        scale: list[float] | None = None,
        pairs: bool = False,
    ) -> None:
        super().__init__()
        self._check(classes, channels, vocab_size, pooling, location, scale)
        self.classes, self.channels, self.vocab_size, self.pooling = classes, channels, vocab_size, pooling
        self.pairs = pairs
        self.backbone = backbone
        if hasattr(backbone, "d_out"):
            raise ValueError(
                f"{type(backbone).__name__} ends with fewer tokens than it is given, and a classifier of "
                "sequences answers at each. Classify pictures by the kind 'vision', or take another backbone."
            )
        d_model: int = self.backbone.d_model
        self.input = nn.Linear(channels, d_model) if channels else nn.Embedding(vocab_size or 0, d_model)
        pooled = 2 * d_model if pooling == "both" else d_model
        self.joint = nn.Linear(4 * pooled, d_model) if pairs else None
        self.head = nn.Linear(d_model if pairs else pooled, len(classes))
        width = channels or 0
        self.register_buffer("location", torch.tensor(location if location else [0.0] * width))
        spread = torch.tensor(scale if scale else [1.0] * width)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))

    def init_state(self, batch: int, max_length: int | None = None) -> PooledState:
        """The backbone's state before the first step, and nothing pooled yet."""
        inner = self.backbone.init_state(batch, max_length)
        return nothing_pooled(inner, batch, self.backbone.d_model, self.head.weight)

    def forward(
        self,
        inputs: Float[Tensor, "rows t c"] | Int[Tensor, "rows t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t classes"], PooledState]:
        """Logits of the sequence up to each step since the last reset, and the state after the last step."""
        before = self.init_state(inputs.shape[0], inputs.shape[1]) if state is None else PooledState(*state)
        features, inner = self.backbone(self._embed(inputs), before.backbone, resets=resets, dt=dt)
        mean, after = running_mean(features, before, inner, resets)
        return self._answer(mean, features), after

    def step(
        self, inputs_t: Tensor, state: tuple, *, dt_t: Tensor | None = None
    ) -> tuple[Float[Tensor, "b classes"], PooledState]:
        """Logits after one more step of each row, (b, c) or (b,), and the next state."""
        before = PooledState(*state)
        features, inner = self.backbone.step(self._embed(inputs_t), before.backbone, dt_t=dt_t)
        after = PooledState(inner, before.total + features.to(before.total.dtype), before.steps + 1)
        mean = (after.total / after.steps).to(features.dtype)
        return self._answer(mean, features), after

    def logits(
        self,
        inputs: Float[Tensor, "rows t c"] | Int[Tensor, "rows t"],
        lengths: Int[Tensor, "rows"],
        dt: Float[Tensor, "rows t"] | None = None,
    ) -> Float[Tensor, "b classes"]:
        """The answer for each row or pair: the logits at its last steps. What lies behind is not read."""
        features, valid = padded_features(self.backbone, self._embed, inputs, lengths, dt)
        return self._answer(*mean_and_last(features, valid, lengths))

    def loss(self, batch: LabelledBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the rows, or pairs."""
        logits = self.logits(batch.inputs, batch.lengths, batch.dt)
        return functional.cross_entropy(_wide(logits), batch.labels)

    def metrics(self, batch: LabelledBatch) -> Mapping[str, Mean]:
        """ "accuracy" over the rows or pairs, and "nats" of cross-entropy of each."""
        with torch.no_grad():
            logits = _wide(self.logits(batch.inputs, batch.lengths, batch.dt))
            losses = functional.cross_entropy(logits, batch.labels, reduction="none")
            right = logits.argmax(-1) == batch.labels
        count = len(batch.labels)
        return {"accuracy": Mean(exact_sum(right), count), "nats": Mean(exact_sum(losses), count)}

    def tokens(self, batch: Any) -> int:
        """Valid steps of all rows."""
        return int(batch.lengths.sum())

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _answer(self, mean: Tensor, last: Tensor) -> Tensor:
        """Logits of rows, or of pairs, from the mean so far and the last feature, (rows, ..., d) each."""
        pooled = mean if self.pooling == "mean" else last
        if self.pooling == "both":
            pooled = torch.cat([mean, last], -1)
        if self.joint is None:
            return self.head(pooled)
        if len(pooled) % 2:
            raise ValueError(
                f"this classifier reads pairs, rows 2i and 2i + 1 of a batch; got {len(pooled)} rows, an odd "
                f"number. Give both sequences of each pair."
            )
        one, other = pooled[0::2], pooled[1::2]
        joint = self.joint(torch.cat([one, other, one * other, one - other], -1))
        return self.head(functional.gelu(joint))

    def _embed(self, inputs: Tensor) -> Tensor:
        if self.channels is None:
            return self.input(inputs)
        scaled = (inputs - self.location) / self.scale
        return self.input(torch.nan_to_num(scaled, nan=0.0))

    @staticmethod
    def _check(
        classes: list[str],
        channels: int | None,
        vocab_size: int | None,
        pooling: str,
        location: list[float] | None,
        scale: list[float] | None,
    ) -> None:
        if (channels is None) == (vocab_size is None):
            raise ValueError(
                f"a classifier reads values or tokens: give channels or vocab_size, one of the two; got "
                f"channels={channels} and vocab_size={vocab_size}. Leave the other at None."
            )
        if len(classes) < 2:
            raise ValueError(f"a classifier needs two classes at least; got {classes}. Check the labels.")
        if pooling not in ("mean", "last", "both"):
            raise ValueError(f"pooling is 'mean', 'last' or 'both'; got {pooling!r}. Take one of these.")
        for name, values in (("location", location), ("scale", scale)):
            if values is not None and len(values) != (channels or 0):
                raise ValueError(
                    f"{name} holds one number for each of the {channels or 0} channels; got {len(values)}. "
                    f"Take the train statistics of the same channels."
                )

    @classmethod
    def example(cls) -> "ClassificationModel":
        """A small instance over values."""
        return cls(
            Stack.example(), ["low", "middle", "high"], channels=2, location=[0.5, 0.0], scale=[2.0, 1.0]
        )

    @classmethod
    def example_batch(cls) -> LabelledBatch:
        """Three rows of different lengths."""
        numbers = torch.Generator().manual_seed(0)
        inputs = torch.randn(3, 7, 2, generator=numbers)
        return LabelledBatch(inputs, torch.tensor([7, 3, 5]), torch.tensor([0, 2, 1]))


def _wide(logits: Tensor) -> Tensor:
    """In float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

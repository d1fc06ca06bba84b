"""Self-pretraining of a backbone: hidden steps of a sequence filled in, or the next step foretold."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._cross_entropy import linear_cross_entropy, score
from hippodrome.models._padded import padded_features
from hippodrome.models.base import Model, Objective, exact_sum
from hippodrome.ops.linear import linear
from hippodrome.shapes import Mean, PretextBatch


class PretrainingModel(Model):
    """Values or tokens, backbone, linear head back to values or tokens: a task made of inputs alone.

    Amos, Berant, Gupta 2023, "Never train from scratch: fair comparison of long-sequence models requires
    data-driven priors", arXiv 2310.02980. What is hidden is decided by the data (``data/pretext.py``): the
    batch holds what the model may read and what it is asked for. With the pretext "masked" a hidden step
    reads as [0, 1], any other as [x, 0], x scaled to mean 0 and deviation 1, and a hidden token as the id
    ``vocab_size``, which no token has. With "causal" the inputs are as they are and the target of a step is
    the next one. The loss is a mean over what is asked and nothing else: the absolute error of scaled values,
    or the cross-entropy in nats over token ids or over the ``levels`` of a value.

    ``forward`` gives logits, or values in raw units, at every step. A causal backbone fills a hidden step in
    from the steps before it; one that reads both ways, from both sides.

    Args:
        backbone: of width ``d_model``; causal for the pretext "causal".
        pretext: "masked" or "causal".
        channels: values a step; None for token sequences.
        vocab_size: number of token ids; None for values. One of the two is given.
        levels: values of one channel are whole numbers below this, and are predicted as classes; None
            predicts them as numbers.
        location: mean of each channel over the train data; None for zeros.
        scale: standard deviation of each channel over the train data; None for ones, a zero counts as one.

    Raises:
        ValueError: not exactly one of ``channels`` and ``vocab_size``, levels of several channels, lists that
            do not fit the channels, or a backbone that reads later steps where the next one is asked for.
    """

    objective: ClassVar[Objective] = Objective("loss", "lower")
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        pretext: Literal["masked", "causal"] = "masked",
        channels: int | None = None,
        vocab_size: int | None = None,
        levels: int | None = None,
        location: list[float] | None = None,
        scale: list[float] | None = None,
    ) -> None:
        super().__init__()
        self._check(backbone, pretext, channels, vocab_size, levels, location, scale)
        self.pretext, self.channels, self.vocab_size, self.levels = pretext, channels, vocab_size, levels
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        width = (channels or vocab_size or 0) + (pretext == "masked")
        self.input = nn.Linear(width, d_model) if channels else nn.Embedding(width, d_model)
        self.head = nn.Linear(d_model, vocab_size or levels or channels or 0, bias=not self.classes)
        self.register_buffer("location", torch.tensor(location or [0.0] * (channels or 0)))
        spread = torch.tensor(scale or [1.0] * (channels or 0))
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))

    @property
    def classes(self) -> int | None:
        """How many answers there are at a step; None where it is a number."""
        return self.vocab_size or self.levels

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The backbone's state before the first step."""
        return self.backbone.init_state(batch, max_length)

    def forward(
        self,
        inputs: Float[Tensor, "b t c"] | Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t o"], tuple]:
        """Logits (b, t, classes) or values (b, t, c) at each step, and the state after the last."""
        features, last = self.backbone(self._embed(inputs), state, resets=resets, dt=dt)
        if self.classes:
            return linear(features, self.head.weight), last
        return self.head(features) * self.scale + self.location, last

    def loss(self, batch: PretextBatch) -> Float[Tensor, ""]:
        """The mean over what is asked: nats, or the absolute error on scaled values; zero for nothing."""
        features, _ = padded_features(self.backbone, self._embed, batch.inputs, batch.lengths, batch.dt)
        if self.classes:
            return linear_cross_entropy(features.flatten(0, 1), self.head.weight, batch.targets.flatten())
        error, asked = self._error(features, batch.targets)
        return error.sum() / asked.sum().clamp(min=1)

    def metrics(self, batch: PretextBatch) -> Mapping[str, Mean]:
        """The "loss", and with token ids or levels the "accuracy" of the first guess."""
        with torch.no_grad():
            features, _ = padded_features(self.backbone, self._embed, batch.inputs, batch.lengths, batch.dt)
            if self.classes:
                rows = features.flatten(0, 1)
                nats, correct, count = score(rows, self.head.weight, batch.targets.flatten())
                return {
                    "loss": Mean(nats, int(count)),
                    "accuracy": Mean(correct.to(nats.dtype), int(count)),
                }
            error, asked = self._error(features, batch.targets)
        return {"loss": Mean(exact_sum(error), int(asked.sum()))}

    def tokens(self, batch: Any) -> int:
        """Valid steps of all rows."""
        return int(batch.lengths.sum())

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def handed_on(self) -> dict[str, Tensor]:
        """What a model of the labelled task starts from, by the names it has there; its head is its own.

        All of the backbone, and the input layer without what only hiding needed: the channel that says what
        is hidden, or the row of the id that stands for it.
        """
        layer = self.input.state_dict()
        weight = layer["weight"]
        layer["weight"] = weight[: self.vocab_size] if self.channels is None else weight[:, : self.channels]
        kept = {f"backbone.{name}": tensor for name, tensor in self.backbone.state_dict().items()}
        kept |= {f"input.{name}": tensor for name, tensor in layer.items()}
        return {name: tensor.clone() for name, tensor in kept.items()}

    def _embed(self, inputs: Tensor) -> Tensor:
        if self.channels is None:
            return self.input(inputs)
        values = torch.nan_to_num((inputs[..., : self.channels] - self.location) / self.scale, nan=0.0)
        return self.input(torch.cat([values, inputs[..., self.channels :]], -1))

    def _error(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Absolute errors on scaled values, zero where nothing is asked, and where something is."""
        said = self.head(features)
        wide = said.to(torch.promote_types(said.dtype, torch.float32))
        asked = ~targets.isnan()
        wanted = (torch.where(asked, targets, 0.0) - self.location) / self.scale
        return torch.where(asked, (wide - wanted).abs(), 0.0), asked

    @staticmethod
    def _check(
        backbone: nn.Module,
        pretext: str,
        channels: int | None,
        vocab_size: int | None,
        levels: int | None,
        location: list[float] | None,
        scale: list[float] | None,
    ) -> None:
        if pretext not in ("masked", "causal"):
            raise ValueError(f"a pretext is 'masked' or 'causal'; got {pretext!r}. Take one of the two.")
        if (channels is None) == (vocab_size is None):
            raise ValueError(
                f"pretraining reads values or tokens: give channels or vocab_size, one of the two; got "
                f"channels={channels} and vocab_size={vocab_size}. Leave the other at None."
            )
        if levels is not None and (channels != 1 or levels < 2):
            raise ValueError(
                f"levels, two or more, are of the values of one channel; got levels={levels} and "
                f"channels={channels}. Leave them out to predict numbers."
            )
        for name, values in (("location", location), ("scale", scale)):
            if values is not None and len(values) != (channels or 0):
                raise ValueError(
                    f"{name} holds one number for each of the {channels or 0} channels; got {len(values)}. "
                    f"Take the train statistics of the same channels."
                )
        if pretext == "causal" and not getattr(backbone, "causal", True):
            raise ValueError(
                "who foretells the next step must not read it, so the backbone is causal; got one that is "
                "not. Pretrain it with the pretext 'masked'."
            )

    @classmethod
    def example(cls) -> "PretrainingModel":
        """A small instance that fills in values of two channels."""
        return cls(Stack.example(), channels=2, location=[0.5, 0.0], scale=[2.0, 1.0])

    @classmethod
    def example_batch(cls) -> PretextBatch:
        """Three rows of different lengths, a third of their steps hidden."""
        numbers = torch.Generator().manual_seed(0)
        values = torch.randn(3, 7, 2, generator=numbers)
        lengths = torch.tensor([7, 3, 5])
        hidden = torch.tensor([[0, 1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]]).bool()
        nothing = float("nan")
        inputs = torch.cat([torch.where(hidden[..., None], nothing, values), hidden[..., None].float()], -1)
        return PretextBatch(inputs, torch.where(hidden[..., None], values, nothing), lengths)

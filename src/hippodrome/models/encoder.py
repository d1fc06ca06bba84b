"""The sequence encoder: a row of tokens to one vector of length 1, near those of what belongs to it."""

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
from hippodrome.shapes import Mean, PairBatch


class EncoderModel(Model):
    """Embedding, backbone, pooling, a linear map if wanted, and division by the length of the vector.

    The loss is InfoNCE with all candidates of the batch (van den Oord, Li, Vinyals 2018, arXiv 1807.03748,
    equation 4; negatives of the batch as in Karpukhin et al. 2020, arXiv 2004.04906, section 3.2): with
    s_ij = q_i . c_j / temperature over queries q and candidates c of all rows, the mean of
    -ln softmax_j(s_ij) at the candidate of i, and of the same from the candidate's side over all queries.
    Metrics compare a query with the candidates of its own row alone, so that they do not depend on the batch;
    a row of one candidate tells nothing.

    ``forward`` gives the vector of the sequence up to each step, as a stream needs it; ``encode`` gives that
    of whole rows. Over a backbone that reads later steps too, ``forward`` and ``step`` refuse.

    Args:
        backbone: of width ``d_model``.
        vocab_size: number of token ids.
        d_out: channels of a vector; None for those of the backbone, without a map.
        pooling: "mean" of the features since the last reset, or the "last" feature.
        temperature: what similarities are divided by; 0.05 as in Gao, Yao, Chen 2021, arXiv 2104.08821.

    Raises:
        ValueError: another pooling, or a temperature that is not above 0.
    """

    objective: ClassVar[Objective] = Objective("accuracy", "higher")

    def __init__(
        self,
        backbone: nn.Module,
        vocab_size: int,
        d_out: int | None = None,
        pooling: Literal["mean", "last"] = "mean",
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "last"):
            raise ValueError(f"pooling is 'mean' or 'last'; got {pooling!r}. Take one of the two.")
        if not temperature > 0:
            raise ValueError(f"a temperature divides similarities, so it is above 0; got {temperature}.")
        self.vocab_size, self.pooling, self.temperature = vocab_size, pooling, temperature
        self.backbone = backbone
        d_model: int = self.backbone.d_model
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.head = None if d_out is None else nn.Linear(d_model, d_out, bias=False)

    def init_state(self, batch: int, max_length: int | None = None) -> PooledState:
        """The backbone's state before the first token, and nothing pooled yet."""
        inner = self.backbone.init_state(batch, max_length)
        return nothing_pooled(inner, batch, self.backbone.d_model, self.embedding.weight)

    def forward(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t o"], PooledState]:
        """The vector of the sequence up to each token since the last reset, and the state after the last."""
        before = self.init_state(inputs.shape[0], inputs.shape[1]) if state is None else PooledState(*state)
        features, inner = self.backbone(self.embedding(inputs), before.backbone, resets=resets, dt=dt)
        mean, after = running_mean(features, before, inner, resets)
        return self._vector(mean, features), after

    def encode(self, inputs: Int[Tensor, "rows t"], lengths: Int[Tensor, "rows"]) -> Float[Tensor, "rows o"]:
        """The vectors of whole rows, of length 1. What lies behind the end of a row is not read."""
        features, valid = padded_features(self.backbone, self.embedding, inputs, lengths)
        return self._vector(*mean_and_last(features, valid, lengths))

    def loss(self, batch: PairBatch) -> Float[Tensor, ""]:
        """InfoNCE in nats, the mean of both sides."""
        queries, candidates = self._both(batch)
        count = candidates.shape[1]
        scores = queries @ candidates.flatten(0, 1).mT / self.temperature
        own = torch.arange(len(queries), device=scores.device)
        back = scores[:, ::count].mT
        return (functional.cross_entropy(scores, own * count) + functional.cross_entropy(back, own)) / 2

    def metrics(self, batch: PairBatch) -> Mapping[str, Mean]:
        """Of a query among the candidates of its row: "accuracy", whether its own is nearest, and "nats"."""
        with torch.no_grad():
            queries, candidates = self._both(batch)
            scores = (candidates @ queries[..., None])[..., 0] / self.temperature
            right = (scores[:, :1] > scores[:, 1:]).all(1)
            nats = -scores.log_softmax(1)[:, 0]
        count = len(queries)
        return {"accuracy": Mean(exact_sum(right), count), "nats": Mean(exact_sum(nats), count)}

    def tokens(self, batch: Any) -> int:
        """Valid steps of queries and candidates."""
        return int(batch.query_lengths.sum() + batch.lengths.sum())

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _both(self, batch: PairBatch) -> tuple[Float[Tensor, "b o"], Float[Tensor, "b k o"]]:
        """Vectors of the queries and of their candidates, in float32 at least."""
        rows = self.encode(batch.candidates.flatten(0, 1), batch.lengths.flatten())
        queries = self.encode(batch.queries, batch.query_lengths)
        wide = torch.promote_types(rows.dtype, torch.float32)
        return queries.to(wide), rows.to(wide).unflatten(0, batch.lengths.shape)

    def _vector(self, mean: Tensor, last: Tensor) -> Tensor:
        pooled = mean if self.pooling == "mean" else last
        return functional.normalize(pooled if self.head is None else self.head(pooled), dim=-1)

    @classmethod
    def example(cls) -> "EncoderModel":
        """A small instance over 11 tokens."""
        return cls(Stack.example(), 11, d_out=6, temperature=0.5)

    @classmethod
    def example_batch(cls) -> PairBatch:
        """Three queries of different lengths with two candidates each."""
        numbers = torch.Generator().manual_seed(0)
        queries = torch.randint(11, (3, 7), generator=numbers)
        candidates = torch.randint(11, (3, 2, 5), generator=numbers)
        lengths = torch.tensor([[5, 4], [3, 5], [5, 2]])
        return PairBatch(queries, torch.tensor([7, 3, 5]), candidates, lengths)

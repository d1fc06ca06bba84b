"""The causal language model: tokens to a distribution over the next one."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._cross_entropy import IGNORED, linear_cross_entropy, score
from hippodrome.models._lookup import tied_lookup
from hippodrome.models.base import Model, Objective
from hippodrome.ops.linear import linear
from hippodrome.shapes import Mean, TokenBatch


class LanguageModel(Model):
    """Embedding, backbone, linear head: p(token_{t+1} | tokens up to t) = softmax(W h_t).

    The embedding starts as N(0, 0.02^2) (Radford et al. 2019, section 2.3; the published Mamba models do the
    same); the scaling of what writes into the residual stream is the stack's.

    Args:
        backbone: causal, width ``d_model``.
        vocab_size: number of token ids.
        tie: whether head and embedding are one matrix (Press and Wolf 2016, arXiv 1608.05859).
        bytes_per_token: what turns nats per token into bits per byte: one number for all tokens, or the
            number of bytes of each token id. It changes no output.
    """

    objective: ClassVar[Objective] = Objective("nats", "lower")
    token_bytes: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        vocab_size: int,
        tie: bool = True,
        bytes_per_token: float | list[int] = 1.0,
    ) -> None:
        super().__init__()
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "a language model predicts the next token, so its backbone must be causal; got one that is "
                "not. Choose a causal backbone, or a classification model."
            )
        if isinstance(bytes_per_token, list) and len(bytes_per_token) != vocab_size:
            raise ValueError(
                f"bytes_per_token as a list holds a number for each of the {vocab_size} token ids; it has "
                f"{len(bytes_per_token)}. Take it from the tokenizer of the tokens, or give one number."
            )
        self.vocab_size, self.tie, self.bytes_per_token = vocab_size, tie, bytes_per_token
        self.embedding = nn.Embedding(vocab_size, backbone.d_model)  # type: ignore[arg-type]
        self.backbone = backbone
        self.head = None if tie else nn.Linear(self.embedding.embedding_dim, vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        table = torch.tensor(bytes_per_token if isinstance(bytes_per_token, list) else [], dtype=torch.int64)
        self.register_buffer("token_bytes", table, persistent=False)

    @property
    def head_weight(self) -> Float[Tensor, "vocab d"]:
        """The matrix W of the head: the embedding's own where they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The backbone's state before the first token."""
        return self.backbone.init_state(batch, max_length)

    def features(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t d"], tuple]:
        """What the head reads at each token (b, t, d), and the state: for callers who need few logits."""
        return self.backbone(self.embedding(inputs), state, resets=resets, dt=dt)

    def forward(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t vocab"], tuple]:
        """Logits of the next token at every token, and the state after the last."""
        features, state = self.features(inputs, state, resets=resets, dt=dt)
        return linear(features, self.head_weight), state

    def last(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b vocab"], tuple]:
        """Logits after the last token alone: the head over all of them is a third of a small model's work."""
        features, state = self.features(inputs, state, resets=resets, dt=dt)
        return linear(features[:, -1], self.head_weight), state

    def step(
        self, inputs_t: Int[Tensor, "b"], state: tuple, *, dt_t: Tensor | None = None
    ) -> tuple[Float[Tensor, "b vocab"], tuple]:
        """Logits of the next token after one more token, and the next state."""
        features, state = self.backbone.step(self.embedding(inputs_t), state, dt_t=dt_t)
        return linear(features, self.head_weight), state

    def advance_(
        self, inputs_t: Int[Tensor, "b"], state: tuple, *, dt_t: Tensor | None = None
    ) -> Float[Tensor, "b vocab"]:
        """The same, overwriting a state that the caller owns."""
        features = self.backbone.advance_(self.embedding(inputs_t), state, dt_t=dt_t)
        return linear(features, self.head_weight)

    def loss(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the targets that are not -100, in float32 at least."""
        tokens = tied_lookup(self.embedding, batch.tokens) if self.tie else self.embedding(batch.tokens)
        features, _ = self.backbone(tokens, None, resets=batch.resets)
        return linear_cross_entropy(features.flatten(0, 1), self.head_weight, batch.targets.flatten())

    def metrics(self, batch: TokenBatch) -> Mapping[str, Mean]:
        """ "nats" per token, "bits_per_byte" of text and "accuracy" of the first guess."""
        with torch.no_grad():
            features, _ = self.features(batch.tokens, resets=batch.resets)
            targets = batch.targets.flatten()
            nats, correct, rows = score(features.flatten(0, 1), self.head_weight, targets)
            count, bits = int(rows), nats / math.log(2)
            if isinstance(self.bytes_per_token, list):
                per_byte = Mean(bits, int(self.token_bytes[targets[targets != IGNORED]].sum()))
            else:
                per_byte = Mean(bits / self.bytes_per_token, count)
        return {
            "nats": Mean(nats, count),
            "bits_per_byte": per_byte,
            "accuracy": Mean(correct.to(nats.dtype), count),
        }

    def tokens(self, batch: Any) -> int:
        """Tokens read, padding included: what the machine works through."""
        return batch.tokens.numel()

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    @classmethod
    def example(cls) -> "LanguageModel":
        """A small instance over 11 tokens."""
        return cls(Stack.example(), 11)

    @classmethod
    def example_batch(cls) -> TokenBatch:
        """Three rows of seven tokens, one of them with nothing to predict at two places."""
        numbers = torch.Generator().manual_seed(0)
        tokens = torch.randint(11, (3, 8), generator=numbers)
        targets = tokens[:, 1:].clone()
        targets[1, 5:] = IGNORED
        return TokenBatch(tokens[:, :-1], targets)

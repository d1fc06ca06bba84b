"""The causal language model: tokens to a distribution over the next one."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones.stack import Stack
from hippodrome.layers.quantized import QuantizedEmbedding, QuantizedProjection
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._cross_entropy import IGNORED, capped, guesses, linear_cross_entropy, score
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
            number of bytes of each token id; None where tokens are no bytes, which leaves that metric out.
            It changes no output.
        modalities: the modality of each token id, whole numbers from 0, for mixers that tell them apart; None
            for one modality.
        modality_names: their names; metrics then hold the nats of each.
        whole_answers: whether the targets of a row are one answer, so that metrics hold "exact", the share of
            rows that are right at all of them. It changes no output.
        embedding_scale: of what the embedding gives: the root of the width in Gemma, a constant elsewhere.
        logit_scale: of the logits.
        logit_cap: c, where the logits z are c tanh(z / c) after that (Gemma Team 2024, arXiv 2408.00118,
            section 2); None for none.

    Raises:
        ValueError: a backbone that is not causal, a list that does not fit the vocabulary, or a cap that is
            not positive.
    """

    objective: ClassVar[Objective] = Objective("nats", "lower")
    token_bytes: Tensor
    token_modality: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        vocab_size: int,
        tie: bool = True,
        bytes_per_token: float | list[int] | None = 1.0,
        modalities: list[int] | None = None,
        modality_names: list[str] | None = None,
        whole_answers: bool = False,
        embedding_scale: float = 1.0,
        logit_scale: float = 1.0,
        logit_cap: float | None = None,
    ) -> None:
        super().__init__()
        if logit_cap is not None and logit_cap <= 0:
            raise ValueError(f"A cap of the logits is above zero; got {logit_cap}. For none leave it out.")
        if not getattr(backbone, "causal", True):
            raise ValueError(
                "a language model predicts the next token, so its backbone must be causal; got one that is "
                "not. Choose a causal backbone, or a kind of model that reads from both ends: "
                "masked_language, encoder or classification."
            )
        if isinstance(bytes_per_token, list) and len(bytes_per_token) != vocab_size:
            raise ValueError(
                f"bytes_per_token as a list holds a number for each of the {vocab_size} token ids; it has "
                f"{len(bytes_per_token)}. Take it from the tokenizer of the tokens, or give one number."
            )
        if modalities is not None and (len(modalities) != vocab_size or min(modalities) < 0):
            raise ValueError(
                f"modalities holds a whole number from 0 on for each of the {vocab_size} token ids; it has "
                f"{len(modalities)}. Take it from the source of the tokens, or leave it out."
            )
        if modality_names is not None and len(modality_names) != max(modalities or [-1]) + 1:
            raise ValueError(
                f"modality_names has a name for each modality; got {len(modality_names)} for "
                f"{max(modalities or [-1]) + 1}. Name each once, in the order of their numbers."
            )
        self.vocab_size, self.tie, self.bytes_per_token = vocab_size, tie, bytes_per_token
        self.whole_answers = whole_answers
        self.embedding_scale, self.logit_scale, self.logit_cap = embedding_scale, logit_scale, logit_cap
        self.modality_names = modality_names or []
        self.embedding = nn.Embedding(vocab_size, backbone.d_model)  # type: ignore[arg-type]
        self.backbone = backbone
        self.head = None if tie else nn.Linear(self.embedding.embedding_dim, vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        table = torch.tensor(bytes_per_token if isinstance(bytes_per_token, list) else [], dtype=torch.int64)
        self.register_buffer("token_bytes", table, persistent=False)
        # Handed on only where some mixer inside has a use for it.
        self.tells = modalities is not None and bool(getattr(backbone, "accepts_modality", False))
        self.register_buffer(
            "token_modality", torch.tensor(modalities or [], dtype=torch.int64), persistent=False
        )

    @property
    def head_weight(self) -> Float[Tensor, "vocab d"]:
        """The matrix W of the head: the embedding's own where they are tied. Formed anew where it is int8."""
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
        told = self._told("modality", inputs)
        found, state = self.backbone(self._embedded(inputs), state, resets=resets, dt=dt, **told)
        return _times(found, self.logit_scale), state

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
        return self._logits(features), state

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
        return self._logits(features[:, -1]), state

    def step(
        self, inputs_t: Int[Tensor, "b"], state: tuple, *, dt_t: Tensor | None = None
    ) -> tuple[Float[Tensor, "b vocab"], tuple]:
        """Logits of the next token after one more token, and the next state."""
        told = self._told("modality_t", inputs_t)
        features, state = self.backbone.step(self._embedded(inputs_t), state, dt_t=dt_t, **told)
        return self._logits(_times(features, self.logit_scale)), state

    def advance_(
        self, inputs_t: Int[Tensor, "b"], state: tuple, *, dt_t: Tensor | None = None
    ) -> Float[Tensor, "b vocab"]:
        """The same, overwriting a state that the caller owns."""
        told = self._told("modality_t", inputs_t)
        features = self.backbone.advance_(self._embedded(inputs_t), state, dt_t=dt_t, **told)
        return self._logits(_times(features, self.logit_scale))

    def loss(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the targets that are not -100, in float32 at least."""
        tokens = tied_lookup(self.embedding, batch.tokens) if self.tie else self.embedding(batch.tokens)
        told = self._told("modality", batch.tokens)
        tokens = _times(tokens, self.embedding_scale)
        features, _ = self.backbone(tokens, None, resets=batch.resets, **told)
        rows = _times(features, self.logit_scale).flatten(0, 1)
        return linear_cross_entropy(rows, self.head_weight, batch.targets.flatten(), self.logit_cap)

    def metrics(self, batch: TokenBatch) -> Mapping[str, Mean]:
        """ "nats" per token, "bits_per_byte" of text and bytes, and "accuracy" of the first guess.

        With ``whole_answers`` also "exact": the share of rows all of whose targets are the first guess. Those
        are the answers that greedy generation spells right, for up to its first error it reads the same.
        With ``modality_names`` also "nats_NAME", over the targets of each modality.
        """
        return self.metrics_in_chunks(batch, batch.tokens.shape[1])

    def metrics_in_chunks(self, batch: TokenBatch, chunk: int) -> Mapping[str, Mean]:
        """The same, read ``chunk`` tokens at a time with the state handed on.

        The memory that this takes does not grow with the rows where the mixers' states do not: attention
        keeps every key and value.
        """
        if chunk < 1:
            raise ValueError(f"rows are read in chunks of 1 token or more; got {chunk}. Give 4096, say.")
        with torch.no_grad():
            state, sums = None, []
            apart: dict[str, list[Any]] = {name: [] for name in self.modality_names}
            wrong = torch.zeros(len(batch.tokens), dtype=torch.int64, device=batch.tokens.device)
            for start in range(0, batch.tokens.shape[1], chunk):
                part = slice(start, start + chunk)
                targets = batch.targets[:, part]
                resets = None if batch.resets is None else batch.resets[:, part]
                features, state = self.features(batch.tokens[:, part], state, resets=resets)
                asked = targets != IGNORED
                sums.append(score(features[asked], self.head_weight, targets[asked], self.logit_cap))
                for number, scores in enumerate(apart.values()):
                    among = asked & (self.token_modality[targets.clamp(min=0)] == number)
                    scores.append(score(features[among], self.head_weight, targets[among], self.logit_cap))
                if self.whole_answers:
                    missed = guesses(features[asked], self.head_weight) != targets[asked]
                    wrong.index_add_(0, asked.nonzero()[:, 0], missed.long())
            nats, correct, rows = (torch.stack(column).sum(0) for column in zip(*sums, strict=True))
        targets = batch.targets[batch.targets != IGNORED]
        count, bits = int(rows), nats / math.log(2)
        found = {"nats": Mean(nats, count)}
        if isinstance(self.bytes_per_token, list):
            found["bits_per_byte"] = Mean(bits, int(self.token_bytes[targets].sum()))
        elif self.bytes_per_token is not None:
            found["bits_per_byte"] = Mean(bits / self.bytes_per_token, count)
        found["accuracy"] = Mean(correct.to(nats.dtype), count)
        if self.whole_answers:
            answered = (batch.targets != IGNORED).any(1)
            right = (answered & (wrong == 0)).sum()
            found["exact"] = Mean(right.to(nats.dtype), int(answered.sum()))
        for name, scores in apart.items():
            nats, _, rows = (torch.stack(column).sum(0) for column in zip(*scores, strict=True))
            found[f"nats_{name}"] = Mean(nats, int(rows))
        return found

    def _embedded(self, ids: Tensor) -> Tensor:
        """What the backbone reads."""
        return _times(self.embedding(ids), self.embedding_scale)

    def _logits(self, features: Tensor) -> Tensor:
        """The head's product, by int8 weights without widening them, below the cap."""
        if isinstance(self.head, QuantizedProjection):
            made = self.head(features)
        elif self.head is None and isinstance(self.embedding, QuantizedEmbedding):
            made = self.embedding.product(features)
        else:
            made = linear(features, self.head_weight)
        return capped(made, self.logit_cap)

    def _told(self, name: str, ids: Tensor) -> dict[str, Tensor]:
        """The modality of each token, for a backbone that has a use for it."""
        return {name: self.token_modality[ids]} if self.tells else {}

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


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor

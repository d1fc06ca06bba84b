"""The masked language model: tokens with some hidden or changed, to a distribution over what stood there."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hippodrome.backbones.rcps import RCPS
from hippodrome.backbones.stack import Stack
from hippodrome.mixers.base import ParameterGroup
from hippodrome.models._cross_entropy import IGNORED, linear_cross_entropy, score
from hippodrome.models._lookup import tied_lookup
from hippodrome.models.base import Model, Objective
from hippodrome.ops.linear import linear
from hippodrome.shapes import Mean, TokenBatch


class MaskedLanguageModel(Model):
    """Embedding, backbone, linear head: p(token at t | the row, some of it hidden) = softmax(W h_t).

    Devlin, Chang, Lee, Toutanova 2019, "BERT: pre-training of deep bidirectional transformers for language
    understanding", arXiv 1810.04805, section 3.1, without its second task. Which places are asked for, and
    what is to be read there, is decided by the data: ``targets`` holds the token that stood there, -100 where
    nothing is asked, and the loss is the mean over what is asked. A place that is hidden reads as
    ``mask_token``. The backbone may read both ways, or be causal: it then fills in from what came before.

    Pieces packed into one row are read each on its own where ``resets`` mark their first tokens. Padding, on
    either side of a piece, is a piece in which nothing is asked.

    Over a backbone with ``strands = 2``, whose width is that of two strands of DNA side by side, the model
    reads both: the second half of a token's channels is what stands opposite, channels reversed, and the
    logits are those of the first half plus, with ids exchanged for their complements, those of the second
    (Schiff et al. 2024, "Caduceus: bi-directional equivariant long-range DNA sequence modeling", arXiv
    2403.03234). Where the backbone keeps that symmetry, the logits of the reverse complement are those of
    the sequence, reversed and exchanged.

    Args:
        backbone: of width ``d_model``.
        vocab_size: number of token ids that may be predicted.
        mask_token: the id that a hidden place reads as, one of the ``vocab_size``; None takes one more id,
            ``vocab_size`` itself, which is never predicted.
        tie: whether the head is the embedding's matrix (Press and Wolf 2016, arXiv 1608.05859).
        bytes_per_token: what turns nats per token into bits per byte: one number for all tokens, or the
            number of bytes of each token id. It changes no output.
        complement: for DNA, the id that stands opposite each id on the other strand; read over a backbone of
            two strands alone.

    Raises:
        ValueError: a mask token outside of the vocabulary, lists that do not fit it, a complement that is not
            its own inverse, or a backbone of two strands without a complement or of odd width.
    """

    objective: ClassVar[Objective] = Objective("nats", "lower")
    token_bytes: Tensor
    opposite: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        vocab_size: int,
        mask_token: int | None = None,
        tie: bool = True,
        bytes_per_token: float | list[int] = 1.0,
        complement: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.strands: int = getattr(backbone, "strands", 1)
        self._check(backbone.d_model, vocab_size, mask_token, bytes_per_token, complement)  # type: ignore[arg-type]
        self.vocab_size, self.tie, self.bytes_per_token = vocab_size, tie, bytes_per_token
        self.mask_token = vocab_size if mask_token is None else mask_token
        width: int = backbone.d_model // self.strands  # type: ignore[operator, assignment]
        self.embedding = nn.Embedding(vocab_size + (mask_token is None), width)
        self.backbone = backbone
        self.head = None if tie else nn.Linear(width, vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        table = torch.tensor(bytes_per_token if isinstance(bytes_per_token, list) else [], dtype=torch.int64)
        self.register_buffer("token_bytes", table, persistent=False)
        pairs = list(complement or ())
        pairs += [self.mask_token] if pairs and mask_token is None else []
        self.register_buffer("opposite", torch.tensor(pairs, dtype=torch.int64), persistent=False)

    @property
    def head_weight(self) -> Float[Tensor, "vocab d"]:
        """The matrix W over the backbone's features: a row for each id that may be predicted."""
        own = self.embedding.weight[: self.vocab_size] if self.head is None else self.head.weight
        if self.strands == 1:
            return own
        return torch.cat([own, own[self.opposite[: self.vocab_size]].flip(-1)], -1)

    def init_state(self, batch: int, max_length: int | None = None) -> tuple:
        """The backbone's state before the first token; refused where it reads later tokens."""
        return self.backbone.init_state(batch, max_length)

    def features(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t d"], tuple]:
        """What the head reads at each token (b, t, d), and the state."""
        return self.backbone(self._embed(inputs), state, resets=resets, dt=dt)

    def forward(
        self,
        inputs: Int[Tensor, "b t"],
        state: tuple | None = None,
        *,
        resets: Tensor | None = None,
        dt: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t vocab"], tuple]:
        """Logits of what stands at every token, hidden or not, and the state after the last."""
        features, state = self.features(inputs, state, resets=resets, dt=dt)
        return linear(features, self.head_weight), state

    def loss(self, batch: TokenBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats over the places that are asked; zero for none."""
        features, targets = self._asked(batch)
        return linear_cross_entropy(features, self.head_weight, targets)

    def metrics(self, batch: TokenBatch) -> Mapping[str, Mean]:
        """ "nats" a token asked, its "bits_per_byte" of text and "accuracy" of the first guess."""
        with torch.no_grad():
            features, targets = self._asked(batch)
            nats, correct, rows = score(features, self.head_weight, targets)
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

    def pseudo_nats(self, tokens: Int[Tensor, "t"], at_once: int = 64) -> Float[Tensor, "t"]:
        """-ln p(token at t | all others), with one place hidden at a time: t runs of the backbone.

        Their sum is the negative pseudo-log-likelihood, and exp of their mean the pseudo-perplexity, of
        Salazar, Liang, Nguyen, Kirchhoff 2020, "Masked language model scoring", arXiv 1910.14659, equations 1
        and 2. Only over a backbone that reads both ways is it given all others.

        Args:
            tokens: one sequence.
            at_once: how many places make a batch.
        """
        places = torch.arange(len(tokens), device=tokens.device)
        found = []
        with torch.no_grad():
            for some in places.split(at_once):
                hidden = places == some[:, None]
                features, _ = self.features(torch.where(hidden, self.mask_token, tokens))
                logits = linear(features[hidden], self.head_weight)
                wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
                found.append(-wide.log_softmax(-1).gather(1, tokens[some][:, None])[:, 0])
        return torch.cat(found)

    def both_strands(self) -> "MaskedLanguageModel":
        """A model of the same weights that reads both strands of DNA.

        Its logits are the mean of those of a row and of those of its reverse complement, turned back: what is
        done at inference with a model that was trained on either strand (Caduceus-Ph in Schiff et al. 2024).

        Raises:
            ValueError: this model was not told which ids stand opposite.
        """
        if self.strands == 2:
            return self
        if not len(self.opposite):
            raise ValueError(
                "A model that reads both strands must be told which ids stand opposite; got complement=None. "
                "Make it with the complement of its data."
            )
        mask_token = None if self.mask_token == self.vocab_size else self.mask_token
        complement = self.opposite[: self.vocab_size].tolist()
        backbone: Any = self.backbone
        other = MaskedLanguageModel(
            RCPS(backbone, mean=True), self.vocab_size, mask_token, self.tie, self.bytes_per_token, complement
        )
        other.to(self.embedding.weight.device)
        other.embedding, other.head = self.embedding, self.head
        return other.train(self.training)

    def tokens(self, batch: Any) -> int:
        """Tokens read, padding included: what the machine works through."""
        return batch.tokens.numel()

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the mixers inside."""
        return self.backbone.parameter_groups()

    def _embed(self, inputs: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        embed = tied_lookup if self.tie else _plain_lookup
        one = embed(self.embedding, inputs)
        if self.strands == 1:
            return one
        return torch.cat([one, embed(self.embedding, self.opposite[inputs]).flip(-1)], -1)

    def _asked(self, batch: TokenBatch) -> tuple[Float[Tensor, "rows d"], Int[Tensor, "rows"]]:
        """Features and targets where something is asked: the head is worked out nowhere else."""
        features, _ = self.features(batch.tokens, resets=batch.resets)
        rows, targets = features.flatten(0, 1), batch.targets.flatten()
        if torch.compiler.is_compiling():  # how many there are is not known then
            return rows, targets
        chosen = (targets != IGNORED).nonzero()[:, 0]
        return (rows[chosen], targets[chosen]) if len(chosen) else (rows, targets)

    def _check(
        self,
        d_model: int,
        vocab_size: int,
        mask_token: int | None,
        bytes_per_token: float | list[int],
        complement: list[int] | None,
    ) -> None:
        if mask_token is not None and not 0 <= mask_token < vocab_size:
            raise ValueError(
                f"the mask token is one of the {vocab_size} token ids, from 0 on; got {mask_token}. Give one "
                f"of them, or None for an id of its own."
            )
        for name, values in (("bytes_per_token", bytes_per_token), ("complement", complement)):
            if isinstance(values, list) and len(values) != vocab_size:
                raise ValueError(
                    f"{name} as a list holds a number for each of the {vocab_size} token ids; it has "
                    f"{len(values)}. Take it from the data that the tokens come from."
                )
        if complement is not None and not _own_inverse(complement):
            raise ValueError(
                f"what stands opposite a complement is the token itself, so the complement is its own "
                f"inverse over the {vocab_size} token ids; got {complement}. Pair the ids."
            )
        if self.strands == 2 and (complement is None or d_model % 2):
            raise ValueError(
                f"a backbone of two strands has an even width, half for each, and the model is told which "
                f"ids stand opposite; got width {d_model} and complement={complement}. Read DNA, or take "
                f"another backbone."
            )

    @classmethod
    def example(cls) -> "MaskedLanguageModel":
        """A small instance over 11 tokens and one that hides."""
        return cls(Stack.example(), 11)

    @classmethod
    def example_batch(cls) -> TokenBatch:
        """Three rows of eight tokens, a place or more of each hidden, one changed, one kept."""
        numbers = torch.Generator().manual_seed(0)
        tokens = torch.randint(11, (3, 8), generator=numbers)
        asked = torch.tensor([[0, 1, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0, 1]])
        read = torch.where(asked.bool(), 11, tokens)
        read[1, 5], read[1, 6] = (tokens[1, 5] + 1) % 11, tokens[1, 6]
        return TokenBatch(read, torch.where(asked.bool(), tokens, IGNORED))


def _plain_lookup(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    return embedding(ids)


def _own_inverse(complement: list[int]) -> bool:
    """Whether a list maps its places onto themselves, twice being none."""
    places = range(len(complement))
    return set(complement) <= set(places) and all(complement[complement[i]] == i for i in places)

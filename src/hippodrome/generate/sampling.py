"""From logits to a token: penalties and a bias, greedy or by chance, and three ways to cut off the tail."""

import math
import secrets
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.generate import _cuts

if TYPE_CHECKING:
    from hippodrome.generate.constraint import Constraint


_COLD = 1e-20
"""A temperature below this is that of 0: logits that differ at all leave no chance to the lesser, and in
float32 a division by it might be none."""


class Sampler(NamedTuple):
    """How the next token is chosen.

    First the penalties change the logits, then the bias is added to them, then ``temperature`` divides them,
    then the cuts apply one after the other, in the order of the fields.

    ``temperature`` divides the logits; 0 takes the likeliest token. ``top_k`` keeps the k likeliest (Fan et
    al. 2018, arXiv 1805.04833, section 5.4). ``top_p`` keeps the fewest whose probabilities add up to p
    (Holtzman et al. 2020, arXiv 1904.09751, section 3.1). ``min_p`` keeps those at least that part as likely
    as the likeliest (Nguyen et al. 2024, arXiv 2407.01082, section 3).

    ``repetition_penalty`` divides the positive logits of tokens of the prompt and of what was written, and
    multiplies the negative ones (Keskar et al. 2019, arXiv 1909.05858, section 4.1, where logits below zero
    were not told apart). From the logit of a token that was written, ``presence_penalty`` is subtracted once
    and ``frequency_penalty`` once for each time, as in the protocol of OpenAI. ``logit_bias`` is added to the
    logits of these token ids; minus infinity forbids one.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None

    def check(self) -> None:
        """Raises ValueError where a number is out of its range."""
        rules = (
            ("temperature", "0 or more and finite", 0 <= self.temperature < math.inf),
            ("top_k", "1 or more", self.top_k is None or self.top_k >= 1),
            ("top_p", "above 0 and at most 1", self.top_p is None or 0 < self.top_p <= 1),
            ("min_p", "from 0 to 1", self.min_p is None or 0 <= self.min_p <= 1),
            ("repetition_penalty", "above 0 and finite", 0 < self.repetition_penalty < math.inf),
            ("presence_penalty", "a finite number", math.isfinite(self.presence_penalty)),
            ("frequency_penalty", "a finite number", math.isfinite(self.frequency_penalty)),
        )
        for name, rule, holds in rules:
            if not holds:
                raise ValueError(f"{name} is {rule}; got {getattr(self, name)}")
        for token, bias in (self.logit_bias or {}).items():
            if not bias < math.inf:
                raise ValueError(
                    f"logit_bias is a finite number for a token id, or minus infinity; got {bias} for {token}"
                )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, and nothing is left to chance."""
        return self.temperature < _COLD or self.top_k == 1

    @property
    def edits(self) -> bool:
        """Whether logits are changed, for which the tokens so far must be known: only a Chooser does that."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.logit_bias)

    def choose(
        self, logits: Float[Tensor, "b vocab"], generator: torch.Generator | None = None
    ) -> Int[Tensor, "b"]:
        """One token id for each row. Draws from ``generator`` where there is anything to draw.

        Raises:
            ValueError: penalties or a bias, which a ``Chooser`` for each row applies.
        """
        if self.greedy:
            return self.draw(logits, None)
        exact = torch.float32 if logits.device.type == "mps" else torch.float64
        return self.draw(
            logits, torch.rand(len(logits), dtype=exact, device=logits.device, generator=generator)
        )

    def draw(self, logits: Float[Tensor, "b vocab"], at: Float[Tensor, "b"] | None) -> Int[Tensor, "b"]:
        """The same with the chance handed in: a number from 0 to below 1 for each row, None if greedy.

        The token of a row is the first one up to which the chances, in the order of ids, add up to more.
        """
        if self.edits:
            raise ValueError(
                "penalties and logit_bias change the logits by the tokens so far, which rows at once do not "
                "know. Make a Chooser for each row."
            )
        if self.greedy or at is None:
            return logits.argmax(-1)
        held = self.probabilities(logits).cumsum(-1, dtype=at.dtype)
        end = held[:, -1:]
        target = torch.minimum(at[:, None] * end, torch.nextafter(end, torch.zeros_like(end)))
        return torch.searchsorted(held, target, right=True)[:, 0]

    def probabilities(self, logits: Float[Tensor, "b vocab"]) -> Float[Tensor, "b vocab"]:
        """The distribution that is drawn from, in float32 at least; ``temperature`` is above 0."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, places = logits.softmax(-1).sort(-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, places, beyond), -torch.inf)
        chances = logits.softmax(-1)
        if self.min_p is not None:
            chances = chances * (chances >= self.min_p * chances.amax(-1, keepdim=True))
            chances = chances / chances.sum(-1, keepdim=True)
        return chances


class Chosen(NamedTuple):
    """A token, and how likely the model held it and others to be."""

    id: int
    logprob: float = math.nan
    """Natural logarithm of its chance in the softmax of the model's own logits, in float32 at least, before
    penalties, bias, constraint, temperature and cuts. NaN where log-probabilities were not asked for."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids with the same of theirs, the likeliest first; the chosen one can be missing."""


class Chooser:
    """How one row chooses its tokens. It remembers them, so that in a batch it chooses as it would alone.

    Args:
        sampler: the rules.
        vocab_size: ids that may be chosen are below this; logits beyond, of a vocabulary that was padded, are
            never looked at.
        seed: of the row's own chance, any whole number; None takes one by chance, found in ``seed``.
        prompt: token ids that the repetition penalty counts besides those chosen.
        constraint: what may follow; it is told each token that was chosen.
        logprobs: None tells no log-probabilities, 0 those of the chosen tokens, and n also those of the n
            likeliest.
        output: token ids that were chosen before: with ``drawn`` of then, a row goes on as if it had not been
            put down. A ``constraint`` has been told them.
        drawn: how often chance was asked before.

    Raises:
        ValueError: a number out of its range, or a bias of a token that is not there.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        vocab_size: int,
        seed: int | None = None,
        prompt: Iterable[int] = (),
        constraint: "Constraint | None" = None,
        logprobs: int | None = None,
        output: Iterable[int] = (),
        drawn: int = 0,
    ) -> None:
        sampler.check()
        if logprobs is not None and logprobs < 0:
            raise ValueError(f"logprobs is 0 or more, or None to leave them out; got {logprobs}")
        self.sampler, self.vocab_size, self.constraint = sampler, vocab_size, constraint
        self.logprobs = logprobs
        self.seed = secrets.randbits(63) if seed is None else seed
        self.drawn = drawn
        bits = np.random.PCG64(self.seed % 2**64)
        self._chance = np.random.Generator(bits.advance(drawn) if drawn else bits)
        bias = sampler.logit_bias or {}
        outside = [token for token in bias if not 0 <= token < vocab_size]
        if outside:
            raise ValueError(
                f"logit_bias is for token ids from 0 to {vocab_size - 1}; got {outside[0]}. Leave it out."
            )
        self._bias = (np.array(list(bias), np.int64), np.array(list(bias.values()), np.float64))
        self._known: _Counts | None = None
        self._written: _Counts | None = None
        if sampler.repetition_penalty != 1:
            self._known = _Counts(vocab_size, prompt)
        if sampler.presence_penalty or sampler.frequency_penalty:
            self._written = _Counts(vocab_size, ())
        for token in output:
            self._remember(token)

    def choose(self, logits: Float[Tensor, "vocab"]) -> Chosen:
        """The next token of the row, by the model's logits after the one before.

        Raises:
            ValueError: logits that are not numbers or too few, or no token that may follow.
        """
        wide = torch.promote_types(logits.dtype, torch.float32)
        raw = logits.detach().to("cpu", wide).numpy()
        if len(raw) < self.vocab_size:
            raise ValueError(
                f"a row chooses among {self.vocab_size} tokens and needs a logit for each; got {len(raw)}. "
                "Give it the vocabulary of the model."
            )
        raw = raw[: self.vocab_size]
        x = self._edited(raw)
        best = int(x.argmax())
        if not x[best] > -math.inf:
            raise ValueError(_nothing_to_choose(raw, self.constraint is not None))
        token = best if self.sampler.greedy or x[best] == math.inf else self._drawn(x, float(x[best]))
        self._remember(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        return Chosen(token) if self.logprobs is None else _told(raw, token, self.logprobs)

    def uniform(self) -> float:
        """The row's next number by chance, from 0 to below 1."""
        self.drawn += 1
        return float(self._chance.random())

    def _edited(self, raw: np.ndarray) -> np.ndarray:
        """The logits after penalties, bias and constraint; the model's own stay as they are."""
        if not (self.sampler.edits or self.constraint is not None):
            return raw
        x = raw.copy()
        if self._known is not None:
            ids, penalty = self._known.ids, self.sampler.repetition_penalty
            x[ids] = np.where(x[ids] < 0, x[ids] * penalty, x[ids] / penalty)
        if self._written is not None:
            ids = self._written.ids
            x[ids] -= (
                self.sampler.presence_penalty + self.sampler.frequency_penalty * self._written.times[ids]
            )
        ids, biases = self._bias
        x[ids] += biases
        if self.constraint is not None:
            self.constraint.mask_(torch.from_numpy(x))
        return x

    def _drawn(self, x: np.ndarray, most: float) -> int:
        """A token by chance, after temperature and cuts."""
        at = self.uniform()
        _, top_k, top_p, min_p = self.sampler[:4]
        places: np.ndarray | None = None
        if top_k is not None and top_k < len(x):
            places = _cuts.likeliest(x, top_k)
            x = x[places]
        # The likeliest has weight 1, however small the temperature.
        weights = np.exp((x - most) / self.sampler.temperature)
        if top_p is not None and top_p < 1:
            weights = weights * _cuts.nucleus(weights, top_p)
        if min_p is not None:
            # As a part of the likeliest, a chance is the same before and after the other cuts.
            weights = weights * (weights >= min_p)
        chosen = _cuts.draw(weights, at)
        return chosen if places is None else int(places[chosen])

    def _remember(self, token: int) -> None:
        for counts in (self._known, self._written):
            if counts is not None:
                counts.add(token)


class _Counts:
    """How often each token id came, and which ones came at all, with no loop over them."""

    def __init__(self, vocab_size: int, ids: Iterable[int]) -> None:
        given = np.fromiter(ids, np.int64)
        given = given[(given >= 0) & (given < vocab_size)]
        self.times = np.bincount(given, minlength=vocab_size)
        found = np.flatnonzero(self.times)
        self._count = len(found)
        self._ids = np.zeros(max(64, 2 * len(found)), np.int64)
        self._ids[: len(found)] = found

    @property
    def ids(self) -> np.ndarray:
        """The ids that came, each once."""
        return self._ids[: self._count]

    def add(self, token: int) -> None:
        """One more token."""
        self.times[token] += 1
        if self.times[token] == 1:
            if self._count == len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._ids[self._count] = token
            self._count += 1


def _told(raw: np.ndarray, token: int, top: int) -> Chosen:
    """The token with its log-probability and those of the likeliest."""
    most = raw.max()
    total = float(most) + math.log(float(np.exp(raw - most).sum()))
    first = _cuts.ranked(raw, top) if top else np.zeros(0, np.int64)
    pairs = zip(first.tolist(), (raw[first].astype(np.float64) - total).tolist(), strict=True)
    return Chosen(token, float(raw[token]) - total, tuple(pairs))


def _nothing_to_choose(raw: np.ndarray, constrained: bool) -> str:
    """Why no token can be chosen."""
    if np.isnan(raw).any():
        return (
            f"the model's logits are no numbers: {int(np.isnan(raw).sum())} of {len(raw)} are NaN. Its "
            "weights may be damaged, or its dtype too narrow for them."
        )
    if constrained:
        return "no token of the vocabulary may follow by the constraint. Loosen it, or end the text here."
    return "no token may be chosen: all logits are minus infinity. Take some token out of logit_bias."
